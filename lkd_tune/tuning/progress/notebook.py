"""The live table of a search in a notebook."""

from __future__ import annotations

import io
import time
from typing import Any

from rich.console import Console, RenderableType

_WIDTH = 110
_MIN_INTERVAL_S = 0.5
# Long lines scroll. JupyterLab would otherwise wrap them, and the columns would no longer align.
_HTML = '<pre style="white-space: pre; overflow-x: auto; line-height: normal">{code}</pre>'


class NotebookTable:
    """A renderable as one output of a cell, which is replaced in place.

    rich's own `Live` needs ipywidgets in a notebook, and its output is lost when the notebook is
    saved and opened again. This output stays.

    Args:
        shown: What to show, in its current state at each refresh.
    """

    def __init__(self, shown: RenderableType):
        self._shown = shown
        self._handle: Any = None
        self._refreshed_at = 0.0

    def start(self) -> None:
        """Adds the output to the cell."""
        from IPython.display import HTML, display

        self._handle = display(HTML(self._html()), display_id=True)

    def refresh(self) -> None:
        """Replaces the output, unless that has just been done."""
        if time.monotonic() - self._refreshed_at >= _MIN_INTERVAL_S:
            self._update()

    def stop(self) -> None:
        """Replaces the output a last time."""
        self._update()

    def _update(self) -> None:
        if self._handle is None:
            return
        from IPython.display import HTML

        self._handle.update(HTML(self._html()))
        self._refreshed_at = time.monotonic()

    def _html(self) -> str:
        console = Console(file=io.StringIO(), record=True, width=_WIDTH, force_jupyter=False)
        console.print(self._shown)
        return console.export_html(inline_styles=True, code_format=_HTML)
