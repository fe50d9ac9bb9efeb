"""Digests of what a result was made from: the keys of the caches."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lkd_tune.storage.fetch import local_model


def digest(*parts: Any) -> str:
    """Returns 20 hex digits for values that JSON can hold."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def file_digest(path: Path) -> str:
    """Returns the sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_digest(model: str) -> str:
    """Returns what changes when a model does: content of a folder's files, or the hub id."""
    folder = Path(local_model(model))
    if not folder.is_dir():
        return model
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return digest([(path.name, file_digest(path)) for path in files])
