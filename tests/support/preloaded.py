"""What ranks share that are forked from one process: the seconds that loading it takes."""

import datasets  # noqa: F401
import sklearn.metrics  # noqa: F401
import transformers.models.bert.modeling_bert  # noqa: F401

import lkd_tune.distillation.engine  # noqa: F401
import tests.support.families  # noqa: F401
from lkd_tune.runtime.deepspeed import load_deepspeed

load_deepspeed()

import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: E402, F401  # each ZeRO optimizer loads it
