"""Searches on a cluster for the best small language models, by distillation.

    from lkd_tune import distill, load_run, search

    run = search("layer_map.yaml", name="first")
    model, tokenizer = run.load_best()

Importing the package is fast: torch, ray, transformers and optuna are imported by the modules that
need them, not by this one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lkd_tune.api import Run, distill, load_run, load_space, search
from lkd_tune.version import __version__ as __version__

__all__ = [
    "Measurement",
    "Run",
    "SearchEndedError",
    "SearchSpace",
    "SpecError",
    "TrialSpec",
    "distill",
    "load_run",
    "load_space",
    "search",
]

# Names that need pydantic or YAML, and their modules; imported when they are first used.
_LAZY = {
    "Measurement": "lkd_tune.records.measurement",
    "SearchEndedError": "lkd_tune.config.errors",
    "SearchSpace": "lkd_tune.config.space",
    "SpecError": "lkd_tune.config.errors",
    "TrialSpec": "lkd_tune.config.trial",
}

if TYPE_CHECKING:
    from lkd_tune.config.errors import SearchEndedError, SpecError
    from lkd_tune.config.space import SearchSpace
    from lkd_tune.config.trial import TrialSpec
    from lkd_tune.records.measurement import Measurement


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
