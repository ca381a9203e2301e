"""Figures for a page and as files: one palette, small text, SVG that takes the page's colours."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes

#: By role; page.css has the same names, for dark pages too. Series have a contrast of 4.5 to the
#: ground and are 30 or more apart in CIELAB, also for the colour-blind (Machado et al. 2009).
PALETTE = {
    "ink": "#1b1f24",
    "faint": "#6e7781",
    "ground": "#fffffd",
    "series-0": "#0081a2",
    "series-1": "#c34e00",
    "series-2": "#3a318f",
    "series-3": "#856e52",
    "series-4": "#332600",
    "series-5": "#6f164c",
}
SERIES = [color for role, color in PALETTE.items() if role.startswith("series")]
MARKERS = "osD^vP"
#: Text on a heat map, which has the same colours on a dark page.
ON_DARK, ON_LIGHT = "#ffffff", "#000000"

# matplotlib types the keys as literals.
_STYLE: Any = {
    "svg.fonttype": "none",
    # Names of tasks are no mathematics.
    "text.parse_math": False,
    "font.size": 8.5,
    "axes.edgecolor": PALETTE["faint"],
    "axes.labelcolor": PALETTE["ink"],
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": PALETTE["ground"],
    "axes.facecolor": PALETTE["ground"],
    "text.color": PALETTE["ink"],
    "xtick.color": PALETTE["faint"],
    "ytick.color": PALETTE["faint"],
    "xtick.labelcolor": PALETTE["ink"],
    "ytick.labelcolor": PALETTE["ink"],
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "grid.color": PALETTE["faint"],
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    # As long as a dashed line takes to be seen beside its marker.
    "legend.handlelength": 3.6,
}


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of so many inches; no window system is asked for."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def save(draw: Callable[[], Figure], folder: Path, name: str) -> str:
    """Write ``name.svg`` and ``name.png`` into ``folder``; return the SVG to stand in a page.

    The same figure gives the same bytes.
    """
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure, buffer = draw(), io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        # What was laid out stays so, which is half of the work.
        figure.set_layout_engine("none")
        figure.savefig(folder / f"{name}.png", dpi=160, metadata={"Software": None})
    svg = buffer.getvalue()
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    return inline(svg, name)


def image(draw: Callable[[], Figure]) -> Image.Image:
    """Return a figure as pixels."""
    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE):
        draw().savefig(buffer, format="png", dpi=160)
    return Image.open(buffer).convert("RGB")


def inline(svg: str, name: str) -> str:
    """Return an SVG file as a part of a page: ids of its own, and colours by the page's names."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    # Its rules would hold for the whole page; page.css has them.
    svg = re.sub(r"<style .*?</style>", "", svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    for role, color in PALETTE.items():
        svg = svg.replace(color, f"var(--{role})")
    return svg
