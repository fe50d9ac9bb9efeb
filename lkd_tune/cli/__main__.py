"""`python -m lkd_tune.cli`, where the command is not on the path."""

from lkd_tune.cli.main import main

main()
