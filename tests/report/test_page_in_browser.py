"""The page in a headless Chromium: no error, tables sort and are filtered, commands are whole."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest
from report_world import write_runs
from run_folders import results, write
from specialist_world import content, elsewhere, flat, overlap
from specialist_world import write as write_job

from multiprune.cli import main

if TYPE_CHECKING:
    from pathlib import Path

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium in PATH"),
]

#: Works the page as a reader would, and leaves what is seen in it.
SCRIPT = """
<script>
const seen = {};
const column = (table, name) => {
  const headings = [...document.querySelectorAll(`#${table} th`)];
  const index = headings.findIndex((one) => one.textContent === name);
  const shown = () => [...document.querySelectorAll(`#${table} tbody tr`)]
    .filter((row) => !row.hidden).map((row) => row.cells[index].textContent);
  return [headings[index], shown];
};
const [kept, keptShown] = column("table-runs", "kept");
kept.querySelector("button").click();
seen.rising = keptShown();
seen.ariaRising = kept.getAttribute("aria-sort");
kept.querySelector("button").click();
seen.falling = keptShown();
const [share, shareShown] = column("table-multitask", "proportional split");
share.querySelector("button").click();
seen.emptyLast = shareShown();
seen.ariaElsewhere = document.querySelectorAll("#table-runs th[aria-sort]").length;
const input = document.querySelector("input[data-table=table-runs]");
input.value = "HARD 400000-1";
input.dispatchEvent(new Event("input"));
seen.filtered = column("table-runs", "tasks")[1]();
seen.counted = input.nextElementSibling.textContent;
seen.wide = document.documentElement.scrollWidth <= innerWidth;
const figures = [...document.querySelectorAll("svg")];
const heights = figures.map((one) => one.getBoundingClientRect().height);
seen.figures = heights.every((height) => height > 50);
seen.ground = getComputedStyle(document.body).backgroundColor;
const left = Object.assign(document.createElement("pre"), {id: "seen"});
left.textContent = JSON.stringify(seen);
document.body.append(left);
</script>
"""


def opened(page: Path, folder: Path, *options: str) -> tuple[str, list[str]]:
    """Return the document after its scripts have run, and what they said on the console."""
    assert BROWSER is not None
    run = subprocess.run(
        [
            BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", *options,
            page.as_uri(),
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return run.stdout, [line for line in run.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, with a script behind it that uses it."""
    folder = tmp_path_factory.mktemp("browser")
    main(["report", str(write_runs(folder / "runs")), "--out", str(folder / "report")])
    page = folder / "report" / "index.html"
    page.write_text(page.read_text().replace("</body>", f"{SCRIPT}</body>"))
    return page


def seen_in(page: Path, folder: Path, *options: str) -> dict[str, Any]:
    document, said = opened(page, folder, *options)
    assert said == []
    found = re.search(r'<pre id="seen">(.*?)</pre>', document, re.S)
    assert found
    seen: dict[str, Any] = json.loads(unescape(found[1]))
    return seen


def test_an_error_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<script>nothing.here()</script>")
    _, said = opened(tmp_path / "page.html", tmp_path)
    assert "nothing is not defined" in said[0]


def test_tables_sort_and_are_filtered_without_an_error(worked: Path, tmp_path: Path) -> None:
    seen = seen_in(worked, tmp_path, "--window-size=1200,900")
    sizes = [size for size in ("100,000", "200,000", "400,000") for _ in range(9)]
    assert seen["rising"] == sizes
    assert seen["ariaRising"] == "ascending"
    assert seen["falling"] == sizes[::-1]
    assert seen["emptyLast"][-1] == ""
    assert seen["ariaElsewhere"] == 1
    assert sorted(seen["filtered"]) == ["easy, hard", "hard"]
    assert seen["counted"] == "2 of 27"
    assert seen["figures"]


def test_phone_needs_no_sideways_scrolling_and_dark_is_dark(worked: Path, tmp_path: Path) -> None:
    dark = "--blink-settings=preferredColorScheme=0"
    seen = seen_in(worked, tmp_path, "--window-size=500,900", dark)
    assert seen["wide"]
    assert sum(map(int, re.findall(r"\d+", seen["ground"]))) < 3 * 40


def test_page_by_examples_opens_without_an_error(tmp_path: Path) -> None:
    for number, score in ((10, 0.5), (100, 0.6)):
        for scores in ({"easy": 0.9, "rare": score}, {"rare": score}):
            examples = {"easy": 100, "rare": number}
            content = results(scores, kept=100, examples={task: examples[task] for task in scores})
            write(tmp_path / "runs" / f"{len(scores)}-{number}", content)
    main(["report", str(tmp_path / "runs"), "--by-examples", "--out", str(tmp_path / "report")])
    document, said = opened(tmp_path / "report" / "index.html", tmp_path)
    assert said == []
    assert "table-examples-equal-size" in document


def test_page_of_specialists_opens_without_an_error(tmp_path: Path) -> None:
    shared = {"500000": overlap(0.4, 0.5)}
    for labels in ("gold", "pseudo"):
        for examples in (10, 100):
            job = content(flat(0.8, 0.6), labels=labels, examples=examples)
            job |= {"unseen": [elsewhere(0.5)], "overlap": shared}
            write_job(tmp_path / "jobs" / f"{labels}-{examples}", job)
    main(["report", str(tmp_path / "jobs"), "--out", str(tmp_path / "report")])
    document, said = opened(tmp_path / "report" / "index.html", tmp_path)
    assert said == []
    for table in ("specialists", "number", "labels", "unseen", "shared"):
        assert f"table-{table}" in document
