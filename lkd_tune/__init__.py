"""Finds the best small language models by distillation, on a cluster.

    from lkd_tune import distill, load_run, search

    run = search("layer_map.yaml", name="first")
    model, tokenizer = run.load_best()

Importing the package is cheap on purpose: torch, ray, transformers and optuna are loaded by
the modules that need them (`lkd_tune.distill`, `lkd_tune.search`), never from here.
"""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lkd_tune import api
from lkd_tune.api import Run, load_run, load_space

__version__ = "0.1.0"

__all__ = [
    "Measurement",
    "Run",
    "SearchSpace",
    "SpecError",
    "TrialSpec",
    "distill",
    "load_run",
    "load_space",
    "search",
]

# What needs pydantic or YAML, by where it is defined; loaded when it is first asked for.
_LAZY = {
    "Measurement": "lkd_tune.spec.measurement",
    "SearchSpace": "lkd_tune.spec.space",
    "SpecError": "lkd_tune.spec.errors",
    "TrialSpec": "lkd_tune.spec.trial",
}

if TYPE_CHECKING:
    from lkd_tune.api import distill, search
    from lkd_tune.spec.errors import SpecError
    from lkd_tune.spec.measurement import Measurement
    from lkd_tune.spec.space import SearchSpace
    from lkd_tune.spec.trial import TrialSpec


class _CallablePackage(ModuleType):
    """A package that, called, does what the function of its name in `lkd_tune.api` does.

    `lkd_tune.search` and `lkd_tune.distill` name packages, too. A function bound to such a name
    would hide its package or be hidden by it, depending on which was imported last.
    """

    __wrapped__: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        # By name, as cloudpickle passes plain modules.
        return import_module, (self.__name__,)


for _function in (api.distill, api.search):
    _package = import_module(f"lkd_tune.{_function.__name__}")
    _package.__class__ = _CallablePackage
    _package.__wrapped__ = _function  # type: ignore[attr-defined]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
