"""One odd run folder among others: it is listed with the reason, and the others are shown."""

from __future__ import annotations

import copy
import json
import os
import random
from typing import TYPE_CHECKING, Any

import pytest
import torch
from run_folders import results, write
from specialist_world import content as specialist_content
from specialist_world import flat
from specialist_world import write as write_specialists

from multiprune.cli import main
from multiprune.refusal import Refusal
from multiprune.report.write import Report
from multiprune.runs.frame import read_runs
from multiprune.runs.jobs import read_jobs
from multiprune.runs.masks import FILE, write_masks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RUNNING = {
    "state": "running", "reason": "", "step": 3, "total_steps": 12, "density": 0.5, "score": 0.5,
    "seconds_per_step": 0.1, "started": "2026-01-01T00:00:00.000+00:00",
    "updated": "2026-01-01T00:00:01.000+00:00", "pid": 1, "host": os.uname().nodename,
}  # fmt: skip
LAYER = "model.encoder.layer.0.weight"
DEEP = "[" * 100_000 + "]" * 100_000
VALUES: list[Any] = [
    None, 0, -1, 1.5, True, "", "x", "\ud800", "2026-01-01T00:00:00", [], {}, [None], {"a": None},
    10**400, -(10**30), 2**70, float("nan"), float("inf"), {"_target_": "os.system"}, [[[]]],
    "$\\frac{", "\x1b[2J", "a\nb", {"a": {"a": {"a": 1}}},
]  # fmt: skip


def write_world(folder: Path, *, odd: dict[str, Any] | None = None) -> Path:
    """Write two good runs, and beside them one that may be odd."""
    for seed in (0, 1):
        write_run(folder / f"good-{seed}", results({"a": 0.5, "b": 0.6}, kept=1000, seed=seed))
    odd = results({"a": 0.5, "b": 0.6}, kept=1000, seed=2) if odd is None else odd
    write_run(folder / "odd", odd)
    (folder / "odd" / "status.json").write_text(json.dumps(RUNNING))
    return folder


def write_run(folder: Path, content: dict[str, Any]) -> None:
    write(folder, content, "seed=0")
    generator = torch.Generator().manual_seed(0)
    write_masks(folder, {LAYER: torch.rand(7, 5, generator=generator) < 0.5})


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every value of a tree as its container and key."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from places(node[key])


def mutated(content: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    content = copy.deepcopy(content)
    for _ in range(draw.choice((1, 1, 3))):
        container, key = draw.choice([*places(content)])
        if isinstance(container, dict) and draw.random() < 0.3:
            value = container.pop(key)
            if draw.random() < 0.5:
                container[draw.choice(("", "\udcff", "_target_", "a.b", "é"))] = value
        else:
            container[key] = draw.choice(VALUES)
    return content


def damaged(raw: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(raw))
    return draw.choice((raw[:place], raw[:place] + bytes([draw.randrange(256)]) + raw[place + 1 :]))


def check_others_are_shown(folder: Path, *, masks: bool = False) -> None:
    report = Report.read([folder], masks=masks)
    for format in ("markdown", "json", "csv"):
        assert report.text(format).encode()
    assert report.study is not None
    shown = {run.path.name for run in report.study.all_runs}
    out = {one.path.name: one.reason for one in report.skipped}
    assert {"good-0", "good-1"} <= shown
    assert all(out.values())
    assert shown | out.keys() == {"good-0", "good-1", "odd"}
    main(["status", str(folder)])
    assert [job.path.name for job in read_jobs(folder)] == ["good-0", "good-1", "odd"]


def set_at(content: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    *path, last = dotted.split(".")
    node = content
    for key in path:
        node = node[key]
    node[last] = value
    return content


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config.data", None),
        ("config.encoder", []),
        ("config.task.a", None),
        ("budget.dense", 0),
        ("budget.kept", int("9" * 400)),
        ("budget.kept", True),
        ("validation.a.accuracy", "0.5"),
        ("density", {LAYER: "x"}),
        ("seed", "0"),
        ("lineage", [{"budget": {"dense": 0}}]),
        ("wall_seconds", float("inf")),
        ("ledger", [1]),
        ("mask_sha256", "\ud800"),
    ],
)
def test_odd_results_are_left_out_with_the_key(tmp_path: Path, key: str, value: Any) -> None:
    content = set_at(results({"a": 0.5, "b": 0.6}, kept=1000, seed=2), key, value)
    write_world(tmp_path, odd=content)
    (skipped,) = read_runs(tmp_path).skipped
    assert skipped.path.name == "odd"
    assert "results.json" in skipped.reason
    assert "\n" not in skipped.reason
    check_others_are_shown(tmp_path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pid": 2**70}, "digits"),
        ({"pid": 2**40}, "`pid`"),
        ({"updated": "2026-01-01T00:00:00"}, "must have a time zone"),
        ({"updated": 3}, "`updated`"),
        ({"state": "dancing"}, "`state`"),
        ({"step": "many"}, "`step`"),
        ({"seconds_per_step": float("inf")}, "`seconds_per_step`"),
        ({"reason": ["a"]}, "`reason`"),
    ],
)
def test_odd_status_is_unknown_with_the_reason(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    write_world(tmp_path)
    (tmp_path / "odd" / "results.json").unlink()
    (tmp_path / "odd" / "status.json").write_text(json.dumps(RUNNING | changed))
    *_, job = read_jobs(tmp_path)
    assert job.state == "unknown"
    assert said in job.reason
    check_others_are_shown(tmp_path)


def test_no_text_of_a_folder_commands_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Clears the screen, renames the window, rings, overwrites the line, and turns text around.
    evil = "\x1b[2J\x1b]0;owned\x07\x9b31m\rnice\u202e"
    content = results({"a": 0.5, "b": 0.6}, kept=1000, seed=2)
    write(tmp_path / f"failed{evil}", {}, f"seed={evil}")
    (tmp_path / f"failed{evil}" / "results.json").unlink()
    status = RUNNING | {"state": "failed", "reason": evil}
    (tmp_path / f"failed{evil}" / "status.json").write_text(json.dumps(status))
    write_run(tmp_path / f"good{evil}", set_at(content, "config.encoder.path", evil))
    specialists = tmp_path.parent / f"{tmp_path.name}-specialists"
    write_specialists(specialists / "good", specialist_content(flat(0.8, 0.6), run=evil))
    (specialists / f"bad{evil}").mkdir()
    (specialists / f"bad{evil}" / "specialists.json").write_text("{")
    cut = ["report", str(specialists), "--format"]
    for command in (
        ["status", str(tmp_path)],
        ["status", str(tmp_path), "--reasons"],
        ["status", str(tmp_path), "--format", "json"],
        *(["report", str(tmp_path), "--format", format] for format in ("markdown", "csv", "json")),
        *([*cut, format] for format in ("csv", "json")),
    ):
        main(command)
        printed = "".join(capfd.readouterr())
        assert "nice" in printed
        assert [one for one in printed if one != "\n" and not one.isprintable()] == []
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / evil)])
    Refusal(evil).say()
    assert "\x1b" not in capfd.readouterr().err


def deep(run: Path) -> None:
    for name in ("results.json", "status.json", ".hydra/overrides.yaml"):
        (run / name).write_text(DEEP)


def pipes(run: Path) -> None:
    for name in ("results.json", "status.json", ".hydra/overrides.yaml"):
        (run / name).unlink()
        os.mkfifo(run / name)


def folders(run: Path) -> None:
    for name in ("results.json", "status.json"):
        (run / name).unlink()
        (run / name).mkdir()


@pytest.mark.parametrize("spoil", [deep, pipes, folders])
def test_what_is_no_file_of_a_run_is_left_out(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(write_world(tmp_path) / "odd")
    check_others_are_shown(tmp_path)
    assert read_jobs(tmp_path)[-1].state == "unknown"


def fuzz(folder: Path, seeds: range) -> None:
    write_world(folder)
    run = folder / "odd"
    names = ("results.json", "status.json", FILE)
    whole = {name: (run / name).read_bytes() for name in names}
    for seed in seeds:
        draw = random.Random(seed)
        name = names[seed % 3]
        if name == FILE or draw.random() < 0.2:
            raw = damaged(whole[name], draw)
        else:
            raw = json.dumps(mutated(json.loads(whole[name]), draw)).encode()
        for other in names:
            (run / other).write_bytes(whole[other])
        (run / name).write_bytes(raw)
        if name == "status.json":
            (run / "results.json").unlink()
        try:
            check_others_are_shown(folder, masks=name == FILE)
        except Exception as error:
            # Whole, and of another comparison: refused with both folders and the key.
            if str(error).startswith("Runs of one comparison must have the same "):
                continue
            error.add_note(f"seed {seed}: {name}: {raw[:2000]!r}")
            raise


def test_mutated_files_hide_no_other_run(tmp_path: Path) -> None:
    fuzz(tmp_path, range(30))


@pytest.mark.slow
def test_300_mutated_files_hide_no_other_run(tmp_path: Path) -> None:
    fuzz(tmp_path, range(1000, 1300))
