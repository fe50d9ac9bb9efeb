"""The Hugging Face hub for reading: quiet, and without waiting for a hub that can't be reached."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator

_TIMEOUT_S = 2
# A hub that was there is asked again only after a while: a load asks for many files.
_TRUSTED_S = 300
# One that could not be reached is not asked again for each file.
_DISTRUSTED_S = 20
_reached_at: float | None = None
_failed_at: float | None = None


@contextlib.contextmanager
def reading_hub() -> Iterator[None]:
    """Makes the hub's client silent; if the hub can't be reached, only its cache is read.

    The client logs each of its five retries, and waits 23 s for them, for each file. Without the
    network its cache is as good.
    """
    from huggingface_hub import constants

    was_offline = constants.HF_HUB_OFFLINE
    with logging_at("huggingface_hub", logging.ERROR):
        try:
            if not was_offline and not is_hub_reachable():
                _set_offline(True)
            yield
        finally:
            _set_offline(was_offline)


@contextlib.contextmanager
def logging_at(library: str, level: int) -> Iterator[None]:
    """Sets the level from which a library logs, for a while."""
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def is_hub_reachable() -> bool:
    """Returns whether the hub answers within two seconds, with whatever status."""
    global _reached_at, _failed_at
    from huggingface_hub import constants, get_session

    now = time.monotonic()
    if _reached_at is not None and now - _reached_at < _TRUSTED_S:
        return True
    if _failed_at is not None and now - _failed_at < _DISTRUSTED_S:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_TIMEOUT_S)
    except Exception:  # of the HTTP library, which the client has changed before
        _failed_at = time.monotonic()
        return False
    _reached_at = now
    return True


def _set_offline(value: bool) -> None:
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = value
    if "datasets" in sys.modules:
        import datasets

        datasets.config.HF_HUB_OFFLINE = value
