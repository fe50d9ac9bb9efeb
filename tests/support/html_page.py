"""A report as a browser would read it."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

import html5lib


class Page:
    """A page, parsed strictly: a page that is not well-formed HTML raises."""

    def __init__(self, path: Path):
        self.source = path.read_text("utf-8")
        parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
        self.root: Element = parser.parse(self.source)

    def has(self, id_: str) -> bool:
        """Whether there is an element of that id."""
        return any(element.get("id") == id_ for element in self.root.iter())

    def text(self, id_: str | None = None) -> str:
        """Returns what is to be read in an element, or the whole page, spaces made single."""
        found = (e for e in self.root.iter() if id_ is None or e.get("id") == id_)
        return " ".join(" ".join(next(found).itertext()).split())

    def count(self, tag: str) -> int:
        """Returns how many elements of a tag there are."""
        return sum(1 for element in self.root.iter() if element.tag == tag)

    @property
    def plots(self) -> list[str]:
        """The names of the plots, in order."""
        ids = [e.get("id") or "" for e in self.root.iter() if e.tag == "figure"]
        return [id_.removeprefix("plot-") for id_ in ids]

    @property
    def ids(self) -> list[str]:
        """All ids."""
        return [e.attrib["id"] for e in self.root.iter() if "id" in e.attrib]

    @property
    def loads(self) -> list[str]:
        """All that the page would load or run."""
        found = []
        for element in self.root.iter():
            if str(element.tag).rpartition("}")[2] in ("script", "iframe", "object", "img"):
                found.append(str(element.tag))
            for name, value in element.attrib.items():
                if str(name).rpartition("}")[2] in ("src", "href") and not value.startswith("#"):
                    found.append(value)
        return [each for each in found if each != "data:,"]
