"""Studies of specialists: what is measured, beside cutting and measuring one by one."""

from __future__ import annotations

import copy
import csv
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from application import ROOT, SMALL, composed, run_in
from recipes import recipe

from multiprune.cli import main
from multiprune.config import plain
from multiprune.export.loading import load
from multiprune.models.encoder import Encoder
from multiprune.runs.jobs import read_jobs
from multiprune.runs.specialist_file import SPECIALISTS
from multiprune.specialize.application import studied
from multiprune.specialize.calibration_set import calibration_set
from multiprune.specialize.origin import read_origin
from multiprune.specialize.request import Request
from multiprune.specialize.specialist import specialized, validated
from multiprune.specialize.study import intersection_over_union, study, write_study

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from multiprune.export.shipped import ShippedModel
    from multiprune.specialize.recipe import Recipe

DENSITIES = (0.75, 0.5)
SHAPE = ("encoder.layers=2", "encoder.hidden=16", "encoder.intermediate=32")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_in(folder, *SMALL, *SHAPE, "pruner=none", "budget=full", "trainer.max_epochs=2")
    return folder


TASKS = ("agreement", "entailment")


def how(fraction: float = 1.0, method: str = "attribution") -> Recipe:
    return recipe(fraction, method=method, examples=12, seed=1)


def found_in(
    run: Path, *, method: str = "attribution", tasks: Sequence[str] = TASKS, **changes: Any
) -> dict[str, Any]:
    request = Request(run=run, tasks=tasks)
    return study(request, how(method=method), **{"densities": DENSITIES, **changes})


@pytest.mark.parametrize("method", ["attribution", "magnitude"])
def test_study_measures_what_cutting_one_by_one_gives(run: Path, method: str) -> None:
    found = found_in(run, method=method)
    model, origin = load(run), read_origin(run)
    encoder = Encoder(model.encoder, model.tokenizer)
    expected, whole = [], {}
    for name in ("agreement", "entailment"):
        encoded = origin.encoded(name, encoder)
        examples = calibration_set(encoded, model, how())
        whole[name] = validated(model.only(name), encoded)
        for density in DENSITIES:
            made = specialized(model, encoded.task, name, examples, how(density, method))
            size = {"asked": made.budget.asked, "kept": made.budget.kept}
            expected.append({"task": name, **size, "metrics": validated(made.model, encoded)})
    assert found["specialists"] == expected
    assert found["whole"] == whole
    assert found["dense"] == 2 * (4 * 16 * 16 + 2 * 16 * 32)
    assert all(one["kept"] <= one["asked"] < found["dense"] for one in found["specialists"])


def test_tasks_share_what_both_keep(run: Path) -> None:
    found = found_in(run, densities=[0.5])
    (overlap,) = found["overlap"].values()
    assert overlap["tasks"] == ["agreement", "entailment"]
    model, origin = load(run), read_origin(run)
    encoder = Encoder(model.encoder, model.tokenizer)
    kept = []
    for name in overlap["tasks"]:
        encoded = origin.encoded(name, encoder)
        examples = calibration_set(encoded, model, how())
        made = specialized(model, encoded.task, name, examples, how(0.5))
        kept.append(
            {
                (path, int(unit))
                for path, mask in made.masks.items()
                if path.endswith("neurons")
                for unit in mask.nonzero()
            }
        )
    shared = len(kept[0] & kept[1]) / len(kept[0] | kept[1])
    assert overlap["neurons"] == [[1.0, shared], [shared, 1.0]]


def test_report_shows_what_was_measured(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = {method: found_in(run, method=method) for method in ("attribution", "random")}
    for method, found in contents.items():
        (tmp_path / method).mkdir()
        write_study(tmp_path / method, found)
    main(["report", str(tmp_path), "--format", "csv"])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    shown = {(row["method"], row["task"], row["asked"]): float(row["score"]) for row in rows}
    assert shown == {
        (method, one["task"], str(one["asked"])): next(iter(one["metrics"].values()))
        for method, found in contents.items()
        for one in found["specialists"]
    }
    main(["report", str(tmp_path), "--format", "json"])
    sections = json.loads(capsys.readouterr().out)["sections"]
    for place, task in enumerate(("agreement", "entailment")):
        table = sections["specialists"]["tables"][f"specialists-{place}-{task}"]
        assert [row["method"] for row in table] == list(contents)
        for row in table:
            means = [one["mean"] for name, one in row.items() if name not in ("method", "draws")]
            own = [score for key, score in shown.items() if key[:2] == (row["method"], task)]
            assert sorted(means) == sorted(own)
    (pair,) = sections["shared"]["tables"]["shared"]
    assert (pair["task"], pair["and"]) == ("agreement", "entailment")
    sizes = contents["attribution"]["overlap"]
    dense = contents["attribution"]["dense"]
    half = min(sorted(sizes, key=int), key=lambda size: abs(int(size) / dense - 0.5))
    assert pair["heads"]["mean"] == sizes[half]["heads"][0][1]


def test_what_is_common_is_counted_over_all_layers() -> None:
    first = [torch.tensor([True, True, False]), torch.tensor([False, True])]
    second = [torch.tensor([True, False, True]), torch.tensor([False, True])]
    assert intersection_over_union(first, second) == 2 / 4
    none = [torch.zeros(3, dtype=torch.bool)]
    assert intersection_over_union(none, none) == 1


def test_other_data_are_answered_by_the_head_of_the_task(run: Path) -> None:
    config = read_origin(run).config["task"]
    same = found_in(
        run, unseen={"agreement": "elsewhere"}, others={"elsewhere": config["agreement"]}
    )
    own = [one["metrics"] for one in same["specialists"] if one["task"] == "agreement"]
    assert [one["metrics"] for one in same["unseen"]] == own
    assert all(one["whole"] == same["whole"]["agreement"] for one in same["unseen"])
    with pytest.raises(ValueError, match=r"must have its classes, .* but roles has"):
        found_in(run, unseen={"agreement": "roles"}, others={"roles": config["roles"]})


def test_other_data_are_answered_by_the_model_that_was_cut(run: Path) -> None:
    origin = read_origin(run)
    others = {"elsewhere": copy.deepcopy(origin.config["task"]["quantity"])}
    others["elsewhere"]["source"] |= {"seed": 7}
    found = found_in(run, tasks=["quantity"], unseen={"quantity": "elsewhere"}, others=others)
    model = load(run)
    encoder = Encoder(model.encoder, model.tokenizer)
    encoded = origin.encoded("quantity", encoder)
    table = origin.encoded("elsewhere", encoder, others=others).splits["validation"]
    examples = calibration_set(encoded, model, how())

    def pearson(asked: ShippedModel) -> float:
        answers = []
        for tokens in table["input_ids"]:
            ids = torch.tensor([tokens])
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            answers.append(float(asked("quantity", inputs)))
        return float(np.corrcoef(answers, table["labels"])[0, 1])

    with torch.no_grad():
        whole = pearson(model)
        assert len(found["unseen"]) == len(DENSITIES)
        for one, density in zip(found["unseen"], DENSITIES, strict=True):
            made = specialized(model, encoded.task, "quantity", examples, how(density))
            cut = pearson(made.model)
            assert cut != pytest.approx(whole, abs=1e-3)
            assert one["metrics"]["pearson"] == pytest.approx(cut, abs=1e-5)
            assert one["whole"]["pearson"] == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tasks": ["rte"]}, "which are agreement, .*, but names rte"),
        ({"unseen": {"agreement": "cr"}}, r"but cr is not: task@others=\[cr\]"),
        ({"unseen": {"roles": "cr"}, "others": {"cr": {}}}, "by `tasks`, .*, but names roles"),
        ({"densities": []}, "`densities` is empty"),
    ],
)
def test_what_cannot_be_is_refused(run: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        found_in(run, **changes)


@pytest.mark.slow
def test_sweep_measures_every_method_once(run: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "train.py", "-cd", "sweep", "-cn", "attribution", f"run={run}"),
        *(f"hydra.sweep.dir={tmp_path}", "method=fisher,random", "seed=0", "densities=[0.5]"),
        *("tasks=[agreement]", "examples=10", "validation_rows=8"),
    ]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    files = sorted(tmp_path.glob(f"*/{SPECIALISTS}"))
    contents = [json.loads(file.read_text()) for file in files]
    assert [one["method"] for one in contents] == ["fisher", "random"]
    assert {job.state for job in read_jobs(tmp_path)} == {"finished"}
    written = [file.stat().st_mtime_ns for file in files]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert [file.stat().st_mtime_ns for file in files] == written


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("densities=[0.5,1.5]", r"`densities\[1\]` must be in \(0, 1\], but is 1\.5"),
        ("densities=[half]", r"`densities\[0\]` must be a number in \(0, 1\], but is 'half'"),
        ("densities=0.5", r"`densities` must be a list, as in densities=\[0\.5\], but is 0\.5"),
        ("rank=relative", "`rank` must be one of null, together, by_module, but is 'relative'"),
        ("+densitis=[0.5]", "unexpected keyword argument 'densitis'"),
        ("+budget.count=5", "but both are"),
    ],
)
def test_settings_of_a_study_are_checked(setting: str, said: str) -> None:
    settings = plain(composed("run=runs/1", setting, config_name="specialize"))
    with pytest.raises((ValueError, TypeError), match=said):
        studied(settings)
