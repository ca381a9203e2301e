"""Reads tables back out of a page, with Python's own parser."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from pathlib import Path

_VOID = {"meta", "link", "input", "br"}


class PageReader(HTMLParser):
    """Tables by name as rows of cells, the heading first; all ids, addresses and open elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.images: list[str] = []
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self.feed(page)
        assert not self._open

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.ids += [named["id"]] if "id" in named else []
        self.addresses += [named[name] for name in ("src", "href", "xlink:href") if name in named]
        if named.get("role") == "img":
            self.images.append(named["aria-label"])
        if tag == "table":
            self._rows = self.tables[named["id"].removeprefix("table-")] = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
        if tag not in _VOID:
            self._open.append(tag)

    @override
    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self._open):
            self._rows[-1][-1] += data
        elif not {"style", "script"} & set(self._open):
            self.words.append(data)


def read_page(file: Path) -> PageReader:
    return PageReader(file.read_text(encoding="utf-8"))
