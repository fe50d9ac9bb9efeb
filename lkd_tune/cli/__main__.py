"""`python -m lkd_tune.cli`: the command line, also where `lkd-tune` is not on the PATH."""

from lkd_tune.cli.main import main

main()
