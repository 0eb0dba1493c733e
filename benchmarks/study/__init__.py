"""Methods compared under one protocol; see ``python -m benchmarks.study --help`` and docs/comparison.md."""
