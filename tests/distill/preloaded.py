"""What ranks share that are forked from one process: the seconds that loading it takes."""

import lkd_tune.distill.engine  # noqa: F401
from lkd_tune.distill.process_group import load_deepspeed

load_deepspeed()
