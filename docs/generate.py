"""What the site takes from elsewhere when it is built: settings, commands, examples, results.

mkdocs calls the functions named `on_…`. A page says `<!-- generated: NAME -->` where a part of
`_PARTS` belongs, and `<!-- example: NAME -->` where a file of `examples/` does.
"""

from __future__ import annotations

import html
import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import typer
import typer.cli
from latex2mathml.converter import convert
from mkdocs.structure.files import File
from pydantic import BaseModel

from lkd_tune.cli.main import app
from lkd_tune.config.reference import settings_reference
from lkd_tune.config.schema import space_schema
from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.config.space import SEARCHABLE

_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
_EXAMPLE = re.compile(r"^<!-- example: (\w+) -->$", re.MULTILINE)
_OUTSIDE = re.compile(r"\]\(\.\./((?:\.\./)*(?:benchmarks/|CHANGELOG\.md))")
_FORMULA = re.compile(r'class="arithmatex">\\([(\[])(.*?)\\[)\]]</', re.DOTALL)


_ROOT = Path(__file__).parent.parent
# Files outside docs/ that are on the site, under their paths in the repository. A link to one of
# them from docs/ has one `../` more in the repository than on the site.
_PAGES = ("CHANGELOG.md", "benchmarks/RESULTS.md", "benchmarks/LOG.md", "benchmarks/plots/*.png")


def on_files(files: Any, config: Any) -> Any:
    """Adds the JSON Schema of space files and the pages outside docs/ to the site."""
    text = json.dumps(space_schema(), indent=2, ensure_ascii=False)
    files.append(File.generated(config, "space.schema.json", content=text))
    for path in (path for pattern in _PAGES for path in sorted(_ROOT.glob(pattern))):
        name = path.relative_to(_ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fills in the generated parts and the examples, and leads links to the site's own pages."""
    markdown = _OUTSIDE.sub(r"](\1", markdown)
    markdown = _EXAMPLE.sub(lambda mark: _example(mark[1]), markdown)
    return _MARK.sub(lambda mark: _PARTS[mark[1]](), markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Makes MathML of formulas, which browsers show without any script."""

    def mathml(found: re.Match[str]) -> str:
        display = "inline" if found[1] == "(" else "block"
        return f'class="formula">{convert(html.unescape(found[2]), display=display)}</'

    return _FORMULA.sub(mathml, content)


def _example(name: str) -> str:
    path = _ROOT / "examples" / f"{name}.py"
    return f'```python title="examples/{path.name}"\n{path.read_text("utf-8")}```'


def _settings() -> str:
    parts = []
    rows = groupby(settings_reference(), key=lambda row: row[0].partition(".")[0])
    for name, settings in rows:
        block = _block(SpaceSettings.model_fields[name].annotation)
        meaning = " ".join((block.__doc__ or "").split()) if block else ""
        searched = " Any leaf may be a distribution." if name in SEARCHABLE else ""
        parts += [f"## {name}\n", f"{meaning}{searched}\n"]
        for key, kind, default, what in settings:
            rule = "needed" if default == "needed" else f"default `{default}`"
            parts += [f"`{key}`", f":   *{kind}*, {rule}  ", f"    {what}\n"]
    return "\n".join(parts)


def _block(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _commands() -> str:
    command = typer.main.get_command(app)
    context = command.make_context("lkd-tune", [], resilient_parsing=True)
    text = typer.cli.get_docs_for_click(obj=command, ctx=context, name="lkd-tune")
    # The page has a heading of its own, and each command can be found in its table of contents.
    _, _, text = text.partition("\n")
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)*", "", text)
    text = re.sub(r"^\* `--help`.*\n", "", text, flags=re.MULTILINE)
    return text.replace("&#x27;", "'")


_PARTS = {"settings": _settings, "commands": _commands}
