from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from application import ROOT

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.S)

#: That of models of many sizes needs one: ``test_frontier.py`` runs it.
OF_SIZES = [one for one in EXAMPLES if "set_density" in one]
#: That of answers in words: ``tests/export/test_predict.py`` runs it.
ANSWERING = [one for one in EXAMPLES if "predict" in one]
PRUNING = [one for one in EXAMPLES if one not in OF_SIZES + ANSWERING]


def test_there_are_two_examples_of_pruning() -> None:
    assert (len(PRUNING), len(OF_SIZES), len(ANSWERING)) == (2, 1, 1)


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


def test_every_command_names_files_and_options_that_exist() -> None:
    commands = re.findall(r"```bash\n(.*?)```", README, re.S)
    assert commands
    for option in re.findall(
        r"\b(task|encoder|pruner|budget|experiment|trainer|setting)=(\w+)", "".join(commands)
    ):
        assert (ROOT / "conf" / option[0] / f"{option[1]}.yaml").is_file(), option
    for file in re.findall(r"benchmarks/\w+\.py", "".join(commands)):
        assert (ROOT / file).is_file()
