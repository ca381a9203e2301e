from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from application import ROOT
from readme_commands import (
    README,
    blocks,
    check_option,
    commands,
    commands_of_sweeps,
    compose_commands,
    inline,
)
from run_folders import results, write

from multiprune.cli import parser
from multiprune.specialize.application import composed as settings_of

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = blocks("python")

#: That of models of many sizes needs one: ``test_frontier.py`` runs it.
OF_SIZES = [one for one in EXAMPLES if "set_density" in one]
RESUMED = [one for one in EXAMPLES if "multiprune.save" in one]
#: That of answers in words: ``tests/export/test_predict.py`` runs it.
ANSWERING = [one for one in EXAMPLES if "predict" in one]
COMPARING = [one for one in EXAMPLES if "read_frame" in one]
PRUNING = [one for one in EXAMPLES if one not in OF_SIZES + RESUMED + ANSWERING + COMPARING]


def test_there_are_examples_of_all_kinds() -> None:
    kinds = (PRUNING, OF_SIZES, RESUMED, ANSWERING, COMPARING)
    assert [len(one) for one in kinds] == [2, 1, 1, 1, 1]


def test_example_compares_pruners_at_each_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for pruner, score in (("Fisher", 0.75), ("Magnitude", 0.5)):
        for kept in (100_000, 200_000):
            content = results({"easy": score}, kept=kept, pruner=pruner)
            write(tmp_path / "runs" / f"{pruner}-{kept}", content)
    monkeypatch.chdir(tmp_path)
    exec(compile(COMPARING[0], "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.count("+0.250") == 2


@pytest.mark.parametrize("example", PRUNING, ids=["Lightning", "plain loop"])
def test_example_prunes_to_its_budget(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    import torch

    encoder = names["encoder"]
    assert isinstance(encoder, torch.nn.Module)
    linear = [one.weight for one in encoder.modules() if isinstance(one, torch.nn.Linear)]
    dense = sum(weight.numel() for weight in linear)
    assert sum(int(weight.count_nonzero()) for weight in linear) == dense // 10


def test_example_that_goes_on_and_saves_meets_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(RESUMED[0], "README.md", "exec"), names)
    model = names["model"]
    assert type(model).__name__ == "BertForSequenceClassification"
    linear = [one for one in model.bert.encoder.parameters() if one.ndim == 2]
    # Two layers of four matrices of 32 x 32 and two of 32 x 64, and a pooler of 32 x 32.
    dense = 2 * (4 * 32 * 32 + 2 * 32 * 64) + 32 * 32
    kept = sum(one.numel() for one in linear) + 32 * 32
    assert dense // 2 - 4 * 8 * 32 < kept <= dense // 2


def test_every_command_of_train_composes() -> None:
    found = [one[2:] for one in commands() if one[:2] == ["python", "train.py"]]
    assert len(found) > 40
    compose_commands(found)


@pytest.mark.slow
def test_every_command_in_a_file_of_a_sweep_composes() -> None:
    found = [one[2:] for one in commands_of_sweeps()]
    assert len(found) > 10
    compose_commands(found)


def test_every_command_of_multiprune_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    found = [one[1:] for one in commands() if one[0] == "multiprune"]
    # The text names some without what they need.
    names = {words[0] for words in found if len(words) == 1}
    whole = [words for words in found if len(words) > 1]
    assert len(whole) > 20
    assert names <= {words[0] for words in whole}
    for words in whole:
        options = parser().parse_args(words)
        assert callable(options.command), capsys.readouterr().err
        if words[0] == "specialize":
            settings_of("classifier" if options.classifier else "run", options.settings)


def test_every_benchmark_exists_and_has_the_options() -> None:
    found = [one[1:] for one in commands() if one[1:] and one[1].startswith("benchmarks/")]
    assert len(found) > 5
    for script, *words in found:
        text = (ROOT / script).read_text()
        assert all(f'"{one}"' in text for one in words if one.startswith("--")), (script, words)


@pytest.mark.parametrize(
    "words",
    [one for one in inline() if re.fullmatch(r"([+~]?[a-z_/@]+=[^\s…]+ ?)+", one)],
)
def test_every_choice_of_options_within_the_text_exists(words: str) -> None:
    for one in shlex.split(words):
        group, _, names = one.lstrip("+").partition("=")
        check_option(group, names)


def test_table_of_groups_names_groups_and_options_that_exist() -> None:
    rows = re.findall(r"^\| (`[^|]+) \| (.+) \| .+ \|$", README.split("| group |")[1], re.M)
    assert len(rows) > 8
    no_options = {"of", "encoder_linear", "encoder", "total", "inductor", "compile"}
    for first, second in rows[: next(i for i, row in enumerate(rows) if "`logger`" in row[0]) + 1]:
        groups = [ROOT / "conf" / name for name in re.findall(r"`([\w/]+)`", first)]
        assert all(one.is_dir() for one in groups if one.name not in no_options)
        for name in re.findall(r"`(\w+)`", second):
            files = [group / f"{name}.yaml" for group in groups]
            assert name in no_options or any(file.is_file() for file in files), name


def test_promises_are_held_by_tests_that_exist() -> None:
    page = (ROOT / "docs" / "promises.md").read_text()
    named = re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)`", page)
    assert len(named) > 25
    assert not [name for name in named if not (ROOT / name).is_file()]
