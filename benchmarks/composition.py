"""Write docs/composition.md: which ways of training go with which pruners, as the tests hold it."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "composition.md"


def main() -> None:
    """Write the page."""
    sys.path.insert(0, str(ROOT / "tests"))
    from composition_table import markdown

    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
