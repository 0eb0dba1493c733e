"""``python -m lnsegfm``."""

from lnsegfm.cli.main import main

main()
