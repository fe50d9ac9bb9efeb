"""Files as tables, converted by the builders of `datasets`."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lkd_tune.storage.hub import logging_at


@contextlib.contextmanager
def without_log() -> Iterator[None]:
    """Silences `datasets`, which logs each error before it raises it, and warnings of pandas."""
    with logging_at("datasets", logging.CRITICAL + 1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def convert(builder: str, path: Path, cache: Path, **options: Any) -> Any:
    """Returns the table that a builder of `datasets` (csv, json, …) makes of a file.

    Args:
        builder: Its name.
        path: The file.
        cache: Folder for converted files.
        **options: The builder's own.

    Raises:
        ValueError: If the builder can't read the file. The message is that of the first cause.
    """
    import datasets

    try:
        with without_log():
            return datasets.load_dataset(
                builder,
                data_files=str(path.resolve()),
                split="train",
                cache_dir=str(cache),
                **options,
            )
    except datasets.exceptions.DatasetGenerationError as error:
        cause = " ".join(str(error.__cause__ or error).split())
        raise ValueError(cause) from error
