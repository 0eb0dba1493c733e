"""Studies: methods on bases, data, shots and draws, each run a job, one table of results, one report."""
