"""JSON files: a list of objects, an object per line, or articles nested like SQuAD's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.formats.convert import convert
from lkd_tune.data.formats.text import as_utf8, open_text


def jsonl_columns(task: TaskSettings, path: Path) -> list[str]:
    """Returns the keys of the first line's object."""
    with open_text(task, path) as file:
        return _keys(_first_value(file.readline())[0])


def jsonl_table(task: TaskSettings, path: Path, cache: Path) -> Any:
    """Returns a table with a row for each line."""
    try:
        return convert("json", as_utf8(task, path, cache), cache)
    except ValueError:
        # That error names the row within a block of the file.
        if found := _broken_line(task, path):
            raise ValueError(found) from None
        raise


def json_columns(task: TaskSettings, path: Path) -> list[str]:
    """Returns the keys of the first object."""
    value, field = _read(task, path)
    if _is_nested(value):
        return list(next(_nested_rows(value), {}))
    return _keys(value if field is None else value[field])


def json_table(task: TaskSettings, path: Path, cache: Path) -> Any:
    """Returns a table with a row for each object, or for each question of a nested file."""
    import datasets

    value, field = _read(task, path)
    if _is_nested(value):
        return datasets.Dataset.from_list(list(_nested_rows(value)))
    return convert("json", as_utf8(task, path, cache), cache, field=field)


def _read(task: TaskSettings, path: Path) -> tuple[Any, str | None]:
    """Returns a file's first value, and its key that holds the rows if they are wrapped.

    `{"version": …, "data": […]}` and the like are wrapped: one object, which lacks the columns that
    the task needs, and in which one list holds objects.

    Raises:
        ValueError: If there are several such lists.
    """
    with open_text(task, path) as file:
        value, is_all = _first_value(file.read())
    columns = {task.columns.text, task.columns.pair, task.columns.label} - {None}
    if not (isinstance(value, Mapping) and is_all) or _is_nested(value) or columns & {*value}:
        return value, None
    lists = [key for key, part in value.items() if isinstance(part, list)]
    fields = [key for key in lists if value[key] and isinstance(value[key][0], Mapping)] or lists
    if len(fields) > 1:
        message = f"it has several lists, {', '.join(fields)}; keep the one that holds the examples"
        raise ValueError(message)
    return value, fields[0] if fields else None


def _first_value(text: str) -> tuple[Any, bool]:
    """Returns the first JSON value in a text, and whether there is nothing after it."""
    text = text.strip()
    value, end = json.JSONDecoder().raw_decode(text)
    return value, end == len(text)


def _keys(value: Any) -> list[str]:
    rows = value if isinstance(value, list) else [value]
    if value == []:
        return []
    if not isinstance(rows[0], Mapping):
        raise ValueError("it does not hold a list of objects, or one object per line")
    return list(rows[0])


def _broken_line(task: TaskSettings, path: Path) -> str | None:
    with open_text(task, path) as file:
        for number, line in enumerate(file, 1):
            try:
                value = json.loads(line) if line.strip() else {}
            except json.JSONDecodeError as error:
                return f"line {number} is not JSON: {error.msg} at character {error.pos + 1}"
            if not isinstance(value, Mapping):
                return f"line {number} is not an object"
    return None


def _is_nested(value: Any) -> bool:
    """Returns whether JSON is nested like SQuAD's: articles, paragraphs, questions."""
    if not isinstance(value, Mapping) or not isinstance(value.get("data"), list):
        return False
    first = next(iter(value["data"]), None)
    return isinstance(first, Mapping) and "paragraphs" in first


def _nested_rows(value: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields a row for each question of a SQuAD file, in the layout of the hub's data set.

    Raises:
        ValueError: If it is nested in another way.
    """
    try:
        for article in value["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = question.get("answers", [])
                    yield {
                        "id": question["id"],
                        "title": article.get("title", ""),
                        "context": paragraph["context"],
                        "question": question["question"],
                        "answers": {
                            "text": [answer["text"] for answer in answers],
                            "answer_start": [answer["answer_start"] for answer in answers],
                        },
                    }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"is not nested as SQuAD's files are, see {error}") from None
