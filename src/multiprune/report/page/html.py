"""One self-contained HTML page: no script, style, font or picture from elsewhere."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from multiprune.report.page.blocks import Cell, Figure, Section, Table

#: Tables of more rows have a field to filter them.
FILTERED = 20

#: Characters of words in a cell that are not broken over lines, though a table is wide.
WIDEST = 32


def page(title: str, lead: str, sections: Sequence[Section], drawn: Mapping[str, str]) -> str:
    """Return the page; ``drawn`` holds the SVG of each figure by its name."""
    return "\n".join(_lines(title, lead, sections, drawn)) + "\n"


def _lines(
    title: str, lead: str, sections: Sequence[Section], drawn: Mapping[str, str]
) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    # A page opened from a disk has no icon; without this, browsers ask for one.
    yield '<link rel="icon" href="data:,">'
    yield f"<title>{escape(title)}</title>\n<style>\n{_resource('page.css')}</style>\n</head>"
    yield f"<body>\n<header><h1>{escape(title)}</h1>\n<p>{escape(lead)}</p></header>"
    links = (f'<li><a href="#{one.name}">{escape(one.title)}</a></li>' for one in sections)
    yield f'<nav aria-label="Sections"><ul>{"".join(links)}</ul></nav>\n<main>'
    for section in sections:
        yield f'<section aria-labelledby="{section.name}">'
        yield f'<h2 id="{section.name}">{escape(section.title)}</h2>'
        yield from (f"<p>{escape(paragraph)}</p>" for paragraph in section.text)
        if section.figures:
            yield '<div class="figures">'
            yield from (_figure(figure, drawn[figure.name]) for figure in section.figures)
            yield "</div>"
        for table in section.tables:
            yield from _table(table)
        yield "</section>"
    yield f"</main>\n<script>\n{_resource('page.js')}</script>\n</body>\n</html>"


def _figure(figure: Figure, svg: str) -> str:
    alt = escape(figure.alt, quote=True)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{alt}"', 1)
    kind = ' class="wide"' if figure.wide else ""
    return f"<figure{kind}>\n{svg}<figcaption>{escape(figure.caption)}</figcaption></figure>"


def _table(table: Table) -> Iterator[str]:
    caption, name = escape(table.caption), f"table-{table.name}"
    if table.folded:
        yield f"<details><summary>{caption} ({len(table.rows):,} rows)</summary>"
    if len(table.rows) > FILTERED:
        yield (
            f'<p class="filter"><label>Rows with <input type="search" data-table="{name}" '
            f'placeholder="words"> <output>{len(table.rows):,} rows</output></label></p>'
        )
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
    yield f'<table id="{name}"><caption>{caption}</caption><thead><tr>'
    sortable = table.sortable and len(table.rows) > 1
    for index, column in enumerate(table.columns):
        words = escape(column)
        inner = f'<button type="button">{words}</button>' if sortable and column else words
        is_number = any(row[index].is_number for row in table.rows)
        yield f'<th scope="col"{" class=number" if is_number else ""}>{inner}</th>'
    yield "</tr></thead><tbody>"
    for row in table.rows:
        cells = (_cell(cell, copied=index == table.copied) for index, cell in enumerate(row))
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"
    if table.folded:
        yield "</details>"


def _cell(cell: Cell, *, copied: bool) -> str:
    key = "" if cell.key is None else f' data-key="{escape(str(cell.key), quote=True)}"'
    if copied and cell.text:
        button = '<button type="button" class="copy">copy</button>'
        return f'<td class="command"{key}>{button}<code>{escape(cell.text)}</code></td>'
    # Numbers do not wrap: without a width of their own, words beside many of them all would.
    look = ' class="number"' if cell.is_number else f' style="min-width:{_width(cell.text)}ch"'
    return f"<td{look}{key}>{escape(cell.text)}</td>"


def _width(words: str) -> int:
    return min(len(words), WIDEST)


def _resource(name: str) -> str:
    return (files("multiprune.report.page") / name).read_text(encoding="utf-8")
