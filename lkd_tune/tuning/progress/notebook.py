"""The live table of a search in a notebook."""

from __future__ import annotations

import io
import threading
from typing import Any

from rich.console import Console, RenderableType

_WIDTH = 110
_INTERVAL_S = 1.0
# Long lines scroll. JupyterLab would otherwise wrap them, and the columns would no longer align.
_HTML = '<pre style="white-space: pre; overflow-x: auto; line-height: normal">{code}</pre>'


class NotebookTable:
    """A renderable as one output of a cell, which is replaced every second.

    rich's own `Live` needs ipywidgets in a notebook, and its output is lost when the notebook is
    saved and opened again. This output stays.

    Args:
        shown: What to show, in its current state at each refresh.
    """

    def __init__(self, shown: RenderableType):
        self._shown = shown
        self._handle: Any = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="notebook table", daemon=True)

    def start(self) -> None:
        """Adds the output to the cell."""
        from IPython.display import HTML, display

        self._handle = display(HTML(self._html()), display_id=True)
        self._thread.start()

    def stop(self) -> None:
        """Replaces the output a last time, if it was started."""
        if self._handle is not None:
            self._stopped.set()
            self._thread.join()
            self._update()

    def _refresh(self) -> None:
        while not self._stopped.wait(_INTERVAL_S):
            self._update()

    def _update(self) -> None:
        from IPython.display import HTML

        self._handle.update(HTML(self._html()))

    def _html(self) -> str:
        console = Console(file=io.StringIO(), record=True, width=_WIDTH, force_jupyter=False)
        console.print(self._shown)
        return console.export_html(inline_styles=True, code_format=_HTML)
