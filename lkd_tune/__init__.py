"""Finds the best small language models by distillation, on a cluster.

Importing the package is cheap on purpose: torch, ray, transformers and optuna are loaded by
the modules that need them (`lkd_tune.distill`, `lkd_tune.search`), never from here.
"""

__version__ = "0.1.0"
