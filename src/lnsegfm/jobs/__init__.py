"""One list of jobs, done on this machine, on SLURM or on Ray; each job is done once, whoever does it."""
