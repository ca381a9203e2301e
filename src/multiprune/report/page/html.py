"""One self-contained HTML page: no script, style, font or picture from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from multiprune.report.page.format import cells
from multiprune.report.page.glossary import GLOSSARY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.page.section import Section

#: Tables of more rows have a field to filter them.
FILTERED = 20

#: Characters of words in a cell that are not broken over lines, though a table is wide.
WIDEST = 32


def page(
    title: str, answers: Sequence[str], sections: Sequence[Section], drawn: Mapping[str, str]
) -> str:
    """Return the page; ``drawn`` holds the SVG of each figure by its name."""
    environment = Environment(
        loader=PackageLoader("multiprune.report", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["resource"] = lambda name: Markup(_resource(environment, name))
    return environment.get_template("page.html.j2").render(
        title=title,
        answers=answers,
        sections=sections,
        drawn={name: Markup(svg) for name, svg in drawn.items()},
        glossary=GLOSSARY,
        cells=cells,
        filtered=FILTERED,
        widest=WIDEST,
    )


def _resource(environment: Environment, name: str) -> str:
    loader = environment.loader
    assert loader is not None
    source, _, _ = loader.get_source(environment, name)
    return source
