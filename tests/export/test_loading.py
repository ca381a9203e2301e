"""What is loaded is what was saved; what is damaged is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from shipped_world import CUT, FAMILIES, READ, TASKS, TOKENIZER, logits, network
from tiny_encoders import CONFIGS, RESIZABLE, SEVERAL_LAYERS, states_of, tiny_encoder
from transformers import AutoModel

import multiprune
from multiprune.export.checkpoint import load_encoder, save_encoder, save_model
from multiprune.export.digests import DIGESTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

#: Families whose shapes depend on the architecture, and on which architectures they are possible.
BY_ARCHITECTURE: dict[str, Iterable[str]] = {
    "heads_and_neurons": CONFIGS,
    "head_dimensions": RESIZABLE,
    "drop_first": SEVERAL_LAYERS,
    "drop_and_cut": SEVERAL_LAYERS,
    "low_rank": CONFIGS,
}
CASES = [(name, family) for family, names in BY_ARCHITECTURE.items() for name in names]
CASES += [("bert", family) for family in FAMILIES if family not in BY_ARCHITECTURE]
REFUSED = [("bert", family) for family in CUT if family != "drop_first"]
REFUSED += [(name, "drop_first") for name in SEVERAL_LAYERS]


def pruned(name: str, family: str) -> PreTrainedModel:
    encoder = tiny_encoder(name, dtype=torch.float32)
    FAMILIES[family](encoder)
    encoder.train(False)
    return encoder


def assert_equal(found: Tensor, expected: Tensor) -> None:
    """A tensor that lies elsewhere in memory may be summed in another order."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped") / "model"
    save_model(folder, network("heads_and_neurons"), TOKENIZER, TASKS)
    return folder


@pytest.fixture
def shipped(pristine: Path, tmp_path: Path) -> Path:
    """A folder that the test may damage."""
    return shutil.copytree(pristine, tmp_path / "model")


def edited(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def refusal(folder: Path) -> str:
    """Return what is said about a folder: one sentence."""
    with pytest.raises((ValueError, OSError)) as caught:
        multiprune.load(folder)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    return said


@torch.no_grad()
@pytest.mark.parametrize(("name", "family"), CASES)
def test_encoder_comes_back(name: str, family: str, tmp_path: Path) -> None:
    encoder = pruned(name, family)
    expected = states_of(encoder)
    (tmp_path / "model").mkdir()
    save_encoder(tmp_path / "model", encoder)
    assert_equal(states_of(load_encoder(tmp_path / "model")), expected)
    by_name = AutoModel.from_pretrained(tmp_path / "model", trust_remote_code=family in CUT)
    assert_equal(states_of(by_name), expected)


@pytest.mark.parametrize(("name", "family"), REFUSED)
def test_plain_transformers_refuses_what_it_cannot_build(
    name: str, family: str, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    save_encoder(tmp_path / "model", pruned(name, family))
    with pytest.raises((RuntimeError, ValueError)):
        AutoModel.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("family", ["zeros", "drop_and_cut", "cut_and_low_rank"])
def test_loaded_encoder_is_saved_as_it_was(family: str, tmp_path: Path) -> None:
    encoder = pruned("bert", family)
    written = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        save_encoder(folder, encoder)
        encoder = load_encoder(folder)
        written.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert written[0] == written[1]


def test_pooler_comes_back(tmp_path: Path) -> None:
    encoder: Any = AutoModel.from_config(CONFIGS["bert"]()).eval()  # type: ignore[no-untyped-call]
    FAMILIES["heads_and_neurons"](encoder)
    save_encoder(tmp_path, encoder)
    inputs = {"input_ids": torch.tensor([[4, 5, 6]])}
    with torch.no_grad():
        expected = encoder(**inputs).pooler_output
        loaded: Any = load_encoder(tmp_path)
        by_name = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
        assert_equal(loaded(**inputs).pooler_output, expected)
        assert_equal(by_name(**inputs).pooler_output, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_loaded_model_answers_as_the_trained_one(family: str, tmp_path: Path) -> None:
    trained = network(family)
    save_model(tmp_path / "model", trained, TOKENIZER, TASKS)
    loaded = multiprune.load(tmp_path / "model")
    for task, (texts, pairs) in READ.items():
        answers = loaded.logits(task, texts, pairs)
        assert_equal(answers, logits(trained, task))


def test_folder_of_a_run_is_loaded_too(shipped: Path) -> None:
    texts, _ = READ["classes"]
    answers = multiprune.load(shipped.parent).logits("classes", texts)
    assert_equal(answers, multiprune.load(shipped).logits("classes", texts))


def test_text_longer_than_the_positions_is_cut_off(shipped: Path) -> None:
    # As some tokenizers of the hub do, this one does not know how long a text may be.
    edited(shipped / "tokenizer_config.json", lambda one: one.pop("model_max_length"))
    answers = multiprune.load(shipped).logits("tags", [["fox"] * 600])
    assert answers.shape == (1, 512, 2)


def test_unknown_task_is_refused(shipped: Path) -> None:
    with pytest.raises(ValueError, match="must be one of classes, pairs, number, tags, but is 'x'"):
        multiprune.load(shipped).logits("x", ["the fox runs"])


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    assert "must be the folder of a finished run" in refusal(tmp_path)
    assert "must be the folder of a finished run" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["model.safetensors", "heads.safetensors"])
@pytest.mark.parametrize("digests", [True, False], ids=["digests", "no digests"])
def test_truncated_weights_are_refused(shipped: Path, name: str, *, digests: bool) -> None:
    if not digests:
        (shipped / DIGESTS).unlink()
    content = (shipped / name).read_bytes()
    (shipped / name).write_bytes(content[: len(content) // 2])
    assert str(shipped / name) in refusal(shipped)


@pytest.mark.parametrize("name", ["model.safetensors", "heads.safetensors"])
@pytest.mark.parametrize("place", [0.001, 0.5, 1.0])
def test_flipped_bit_is_noticed(shipped: Path, name: str, place: float) -> None:
    content = bytearray((shipped / name).read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    (shipped / name).write_bytes(content)
    said = refusal(shipped)
    assert str(shipped / name) in said
    assert DIGESTS in said


@pytest.mark.parametrize("name", ["model.safetensors", "heads.safetensors"])
def test_weights_that_are_missing_are_refused(shipped: Path, name: str) -> None:
    (shipped / name).unlink()
    assert name in refusal(shipped)


def shrink_first(content: dict[str, Any]) -> None:
    content["multiprune"]["linear"]["encoder.layer.0.intermediate.dense"] = [5, 16]


DISAGREEING: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "neurons": (shrink_first, r"encoder.layer.0.intermediate.dense.\w+ is \(6.*\(5"),
    "hidden size": (lambda one: one.update(hidden_size=32), "should be .*32"),
    "fewer layers": (
        lambda one: one.update(num_hidden_layers=1, per_layer_config={}),
        "must be a linear layer, but there is none",
    ),
    "more layers": (lambda one: one.update(num_hidden_layers=3), "missing"),
    "no shapes": (lambda one: one.pop("multiprune"), "per-layer attribute"),
    "unknown path": (
        lambda one: one["multiprune"]["linear"].update({"encoder.nothing": [1, 1]}),
        "nothing",
    ),
    "shape of one number": (
        lambda one: one["multiprune"]["linear"].update({"encoder.layer.0.output.dense": [1]}),
        "config.json",
    ),
    "shapes that are none": (lambda one: one.update(multiprune=[]), "config.json"),
    "no heads": (lambda one: one.update(num_attention_heads=0), "config.json"),
    "unknown architecture": (lambda one: one.update(model_type="unheard-of"), "unheard-of"),
}


@pytest.mark.parametrize("case", DISAGREEING)
def test_configuration_that_disagrees_with_the_weights_is_refused(shipped: Path, case: str) -> None:
    change, expected = DISAGREEING[case]
    edited(shipped / "config.json", change)
    with pytest.raises(ValueError, match=expected) as caught:
        multiprune.load(shipped)
    assert "config.json" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


DAMAGED = [
    (name, content)
    for name in (
        "config.json",
        "heads.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "sha256.json",
    )
    for content in ("", "{", "[]", '{"classes": 1}')
    # These ask for nothing, and do no harm.
    if content != '{"classes": 1}' or name not in ("tokenizer_config.json", "sha256.json")
]


@pytest.mark.parametrize(("name", "content"), DAMAGED)
def test_json_that_is_damaged_is_refused(shipped: Path, name: str, content: str) -> None:
    (shipped / name).write_text(content)
    assert str(shipped) in refusal(shipped)


def test_tokenizer_that_is_missing_is_refused(shipped: Path) -> None:
    (shipped / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in refusal(shipped)


def test_head_that_is_missing_is_refused(shipped: Path) -> None:
    file = shipped / "heads.safetensors"
    (shipped / DIGESTS).unlink()
    heads = load_file(file)
    save_file({key: one for key, one in heads.items() if not key.startswith("pairs")}, file)
    assert "no head for pairs" in refusal(shipped)


def test_head_without_a_meaning_is_refused(shipped: Path) -> None:
    edited(shipped / "heads.json", lambda one: one.pop("pairs"))
    assert "pairs.output.bias is (2,) and should be absent" in refusal(shipped)


def test_heads_of_another_encoder_are_refused(shipped: Path) -> None:
    file = shipped / "heads.safetensors"
    (shipped / DIGESTS).unlink()
    save_file({key: torch.cat([one, one], -1) for key, one in load_file(file).items()}, file)
    assert "should be" in refusal(shipped)


def test_code_in_the_folder_is_not_run(shipped: Path) -> None:
    marker = shipped / "was-run"
    evil = f"open({str(marker)!r}, 'w')\n"
    (shipped / "modeling_multiprune.py").write_text(evil)
    (shipped / "evil.py").write_text(evil)
    names = dict.fromkeys(("AutoConfig", "AutoModel", "AutoTokenizer"), "evil.Anything")
    edited(shipped / "config.json", lambda one: one.update(auto_map=names))
    edited(shipped / "tokenizer_config.json", lambda one: one.update(auto_map=names))
    texts, _ = READ["classes"]
    multiprune.load(shipped).logits("classes", texts)
    assert not marker.exists()
    edited(shipped / "config.json", lambda one: one.update(model_type="evil"))
    assert str(shipped) in refusal(shipped)
    assert not marker.exists()


def test_code_in_the_folder_runs_where_the_user_asks_for_it(shipped: Path) -> None:
    marker = shipped / "was-run"
    with (shipped / "modeling_multiprune.py").open("a") as code:
        code.write(f"\nopen({str(marker)!r}, 'w').close()\n")
    AutoModel.from_pretrained(shipped, trust_remote_code=True)
    assert marker.exists()
