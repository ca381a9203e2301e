from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from application import ROOT

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.S)

#: That of models of many sizes needs one: ``test_frontier.py`` runs it.
OF_SIZES = [one for one in EXAMPLES if "set_density" in one]
RESUMED = [one for one in EXAMPLES if "multiprune.save" in one]
PRUNING = [one for one in EXAMPLES if one not in OF_SIZES + RESUMED]


def test_there_are_two_examples_of_pruning_and_one_of_going_on() -> None:
    assert (len(PRUNING), len(OF_SIZES), len(RESUMED)) == (2, 1, 1)


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


def test_every_command_names_files_and_options_that_exist() -> None:
    commands = re.findall(r"```bash\n(.*?)```", README, re.S)
    assert commands
    for option in re.findall(
        r"\b(task|encoder|pruner|budget|experiment|trainer|setting)=(\w+)", "".join(commands)
    ):
        assert (ROOT / "conf" / option[0] / f"{option[1]}.yaml").is_file(), option
    for file in re.findall(r"benchmarks/\w+\.py", "".join(commands)):
        assert (ROOT / file).is_file()
