"""Exported students on the Hugging Face hub."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.export.formats import FORMATS, MEASUREMENTS_FILE

_OPTION = "--push-to-hub"
# Files of an earlier upload that this one does not replace: they belong to an older student than
# the new weights.
_STALE = [
    MEASUREMENTS_FILE,
    *sorted(
        {
            f"{folder}/*" if (folder := posixpath.dirname(known.file)) else known.file
            for name, known in FORMATS.items()
            if name != "hf"
        }
    ),
]


class HubError(RuntimeError):
    """The hub could not be reached or refused a request; the message is one line."""


def prepare_repositories(name: str, count: int, *, public: bool) -> list[str]:
    """Returns the full names of the repositories for exported students, best first; creates none.

    One student goes to `name`, several to `name`-1, `name`-2, …. If `name` has no owner, the owner
    of the token is used.

    Args:
        name: NAME or OWNER/NAME.
        count: Number of students.
        public: Whether the repositories are to be public.

    Raises:
        SpecError: If there is no token (nothing is sent then), the token or the name is invalid, or
            a repository exists that is public although `public` is False, or the reverse.
        HubError: If the hub can't be reached.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    if get_token() is None:
        message = "no token was found; run `hf auth login`, or set HF_TOKEN"
        raise SpecError(Problem(_OPTION, "", message))
    names = [name] if count == 1 else [f"{name}-{rank}" for rank in range(1, count + 1)]
    try:
        for each in names:
            validate_repo_id(each)
    except HFValidationError as error:
        raise SpecError(Problem(_OPTION, "", str(error).splitlines()[0])) from None
    api, owned = HfApi(), []
    with _one_line_errors():
        owner = api.whoami()["name"]
    for each in names:
        full = each if "/" in each else f"{owner}/{each}"
        with _one_line_errors():
            try:
                private = api.model_info(full).private
            except RepositoryNotFoundError:
                private = None
        if private is not None and private == public:
            found, fix = ("private", "omit --public") if private else ("public", "add --public")
            message = f"{full} exists and is {found}; {fix}, change it there, or use another name"
            raise SpecError(Problem(_OPTION, "", message))
        owned.append(full)
    return owned


def push_student(folder: Path, repository: str, *, public: bool) -> str:
    """Uploads an exported student's whole folder; returns the address of the repository.

    Args:
        folder: The student's folder.
        repository: OWNER/NAME. It is created if it does not exist.
        public: Whether a new repository is public.

    Raises:
        SpecError: If the token has no permission to write there.
        HubError: If the hub can't be reached or refuses the upload.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _one_line_errors():
        url = api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="A student of lkd-tune",
            delete_patterns=_STALE,
        )
    return str(url)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turns errors of the hub's client and its HTTP library into one-line errors of ours."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        yield
    except HfHubHTTPError as error:
        line = _first_line(error)
        if error.response.status_code in (401, 403):  # invalid token, or no permission to write
            raise SpecError(Problem(_OPTION, "", line)) from None
        raise HubError(line) from error
    # ValueError: the card's metadata are refused. RuntimeError: the upload of a large file failed.
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise HubError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
