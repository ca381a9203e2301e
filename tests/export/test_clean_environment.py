"""Exported folders answer where multiprune is not installed, by what their model cards say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from clean_environment import run_without_multiprune
from safetensors.torch import save_file
from shipped_world import CUT, DENSE, FAMILIES, READ, TASKS, TOKENIZER, logits, network

from multiprune.export.checkpoint import save_model
from multiprune.export.convert import ExportSettings, export_model

if TYPE_CHECKING:
    from torch import Tensor

#: Runs the card of each folder, and compares what it answers. Its output is one line of JSON.
SCRIPT = """
import json, os, sys
import torch
from safetensors.torch import load_file
from transformers import AutoModel

world = sys.argv[1]
read = json.load(open(world + "/read.json"))
expected = load_file(world + "/expected.safetensors")
try:
    import multiprune
except ModuleNotFoundError:
    found = {"multiprune": "not installed"}
else:
    found = {"multiprune": multiprune.__file__}
def load(folder, code):
    return AutoModel.from_pretrained(folder, trust_remote_code="trust_remote_code" in code)

@torch.no_grad()
def states(model):
    return model.eval()(torch.tensor([[1, 5, 6, 7]])).last_hidden_state

for folder in json.loads(sys.argv[2]):
    os.chdir(os.path.join(world, folder))
    card = open("README.md").read()
    code = card.split("```python\\n")[1].split("```")[0]
    names = {}
    exec(compile(code, folder + "/README.md", "exec"), names)
    for task, (texts, pairs) in read.items():
        answers = names["logits"](task, texts, pairs)
        wanted = expected[folder + "/" + task]
        assert answers.shape == wanted.shape, (folder, task, answers.shape)
        found[folder + "/" + task] = (answers - wanted).abs().max().item()
    found[folder + "/remote"] = "trust_remote_code" in code
    model, again = load(".", code), os.path.join(world, folder + "-again")
    # A folder from the hub is named in the configuration before two dashes.
    for auto, name in getattr(model.config, "auto_map", {}).items():
        model.config.auto_map[auto] = "someone/elsewhere--" + name
    model.save_pretrained(again)
    found[folder + "/again"] = torch.equal(states(load(again, code)), states(model))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return by folder and task how far the answers are from those before the export."""
    world = tmp_path_factory.mktemp("world")
    expected: dict[str, Tensor] = {}
    for family in FAMILIES:
        model = network(family)
        save_model(world / "runs" / family / "model", model, TOKENIZER, TASKS)
        export_model(world / "runs" / family, world / family, ExportSettings(dtype="fp32"))
        expected |= {f"{family}/{task}": logits(model, task) for task in TASKS}
    save_file(expected, world / "expected.safetensors")
    (world / "read.json").write_text(json.dumps(READ))
    (world / "script.py").write_text(SCRIPT)
    said = run_without_multiprune(world / "script.py", world, json.dumps([*FAMILIES]))
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


@pytest.mark.slow
def test_environment_lacks_multiprune(answers: dict[str, Any]) -> None:
    assert answers["multiprune"] == "not installed"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_card_gives_the_same_logits_of_every_task(answers: dict[str, Any], family: str) -> None:
    differences = {task: answers[f"{family}/{task}"] for task in TASKS}
    assert max(differences.values()) <= 1e-5, differences


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_saved_again_loads_and_gives_the_same_states(answers: dict[str, Any], family: str) -> None:
    assert answers[f"{family}/again"]


@pytest.mark.slow
def test_code_of_the_folder_runs_only_where_shapes_changed(answers: dict[str, Any]) -> None:
    assert [family for family in FAMILIES if answers[f"{family}/remote"]] == [*CUT]
    assert [family for family in FAMILIES if not answers[f"{family}/remote"]] == [*DENSE]
