"""Exported students on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lkd_tune.config.errors import Problem, SpecError

_OPTION = "--push-to-hub"
# What an earlier export of other formats may have left in the repository: it would be of an older
# student than the weights beside it.
_STALE = ["onnx/*", "model.pt2", "formats.json"]


class HubError(RuntimeError):
    """The hub could not be reached or refused; its reason in one line."""


def prepare_repositories(name: str, count: int, *, public: bool) -> list[str]:
    """Returns the full names of the repositories of exported students, best first; makes none.

    One student goes to `name`, several to `name`-1, `name`-2, …. Without an owner they are the
    token's.

    Args:
        name: NAME or OWNER/NAME.
        count: How many students.
        public: Whether everyone is to see them.

    Raises:
        SpecError: If there is no token (nothing is sent then) or a wrong one, the name is none, or
            a repository is there that others see though `public` was not asked for, or the reverse.
        HubError: If the hub can't be reached.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    if get_token() is None:
        message = "there is no token; run `hf auth login`, or set HF_TOKEN"
        raise SpecError(Problem(_OPTION, "", message))
    names = [name] if count == 1 else [f"{name}-{rank}" for rank in range(1, count + 1)]
    try:
        for each in names:
            validate_repo_id(each)
    except HFValidationError as error:
        raise SpecError(Problem(_OPTION, "", str(error).splitlines()[0])) from None
    api, owned = HfApi(), []
    with _told_briefly():
        owner = api.whoami()["name"]
    for each in names:
        full = each if "/" in each else f"{owner}/{each}"
        with _told_briefly():
            try:
                private = api.model_info(full).private
            except RepositoryNotFoundError:
                private = None
        if private is not None and private == public:
            found, fix = (
                ("private", "leave out --public") if private else ("public", "add --public")
            )
            message = f"{full} is there and {found}; {fix}, change it there, or name another"
            raise SpecError(Problem(_OPTION, "", message))
        owned.append(full)
    return owned


def push_student(folder: Path, repository: str, *, public: bool) -> str:
    """Returns the address of a repository that an exported student was uploaded to, all of it.

    Raises:
        SpecError: If the token may not write there.
        HubError: If the hub can't be reached or refuses what it is sent.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _told_briefly():
        url = api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="A student of lkd-tune",
            delete_patterns=_STALE,
        )
    return str(url)


@contextmanager
def _told_briefly() -> Iterator[None]:
    """Turns what the hub's client raises, of whatever HTTP library, into one line."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        yield
    except HfHubHTTPError as error:
        line = _first_line(error)
        if error.response.status_code in (401, 403):  # a token that is wrong or may not write
            raise SpecError(Problem(_OPTION, "", line)) from None
        raise HubError(line) from error
    # ValueError: it refuses the card's metadata; RuntimeError: the upload of a large file.
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise HubError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
