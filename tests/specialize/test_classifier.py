"""``multiprune specialize --classifier``: any with a known encoder, and its own head."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file
from tiny_encoders import CONFIGS
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from multiprune.cli import main
from multiprune.export.classifier import load_classifier
from multiprune.models.from_scratch import character_tokenizer
from multiprune.models.modeling_multiprune import KEY
from multiprune.models.structure import layers_of
from multiprune.specialize import specialize as module
from multiprune.specialize.specialist import specialized

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

    from multiprune.specialize.specialist import Specialist

LABELS = ["no", "maybe", "yes"]
SENTENCES = ["the cat runs", "two dogs sleep", "the fox", "one red dog chased the cat", "a b c"]
ROWS = 30
NO_TYPES = {"return_token_type_ids": False}


def saved_classifier(folder: Path, family: str) -> Path:
    """Write a classifier with random weights that answers some sentences one way, some another."""
    tokenizer = character_tokenizer()
    config = CONFIGS[family]()
    config.vocab_size = len(tokenizer)
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {name: number for number, name in enumerate(LABELS)}
    config.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(0)
    model: Any = untrained(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt", **NO_TYPES)
        bias = next(one for one in model.parameters() if one.shape == (len(LABELS),))
        bias.sub_(model.eval()(**inputs).logits.mean(0))
    model.save_pretrained(folder)
    if family == "distilbert":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    return folder


def untrained(config: PretrainedConfig) -> PreTrainedModel:
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    model: PreTrainedModel = kind(config)
    return model


def table(file: Path, **changed: list[Any]) -> Path:
    columns: dict[str, list[Any]] = {
        "text": [SENTENCES[row % 5] for row in range(ROWS)],
        "other": [SENTENCES[row % 3] for row in range(ROWS)],
        "label": [row % 3 for row in range(ROWS)],
    }
    pyarrow.parquet.write_table(pa.table(columns | changed), file)
    return file


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return table(tmp_path / "train.parquet")


@pytest.fixture
def specialize(tmp_path: Path, data: Path) -> Callable[..., Path]:
    def run(model: Path | str, *arguments: str, out: str = "out") -> Path:
        options = (f"data={data}", "text=[text]", "label=label", "examples=24")
        asked = (*options, "budget.fraction=0.6", f"out={tmp_path / out}", *arguments)
        main(["specialize", "--classifier", str(model), *asked])
        return tmp_path / out

    return run


def outcome(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "specialized.json").read_text())
    return content


def logits_of(model: Any, folder: Path, pairs: list[str] | None = None) -> Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(SENTENCES, pairs, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits: Tensor = model.eval()(**inputs).logits
    return logits


@pytest.mark.parametrize("family", CONFIGS)
def test_folder_loads_by_name_and_answers_like_the_model_that_was_cut(
    family: str,
    specialize: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Specialist] = []

    def cut(*args: Any, **options: Any) -> Specialist:
        made.append(specialized(*args, **options))
        return made[-1]

    monkeypatch.setattr(module, "specialized", cut)
    out = specialize(saved_classifier(tmp_path / "model", family))
    inputs = AutoTokenizer.from_pretrained(out)(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = made[0].model("model", inputs)
    loaded = AutoModelForSequenceClassification.from_pretrained(out, trust_remote_code=True)
    assert type(loaded).__name__.endswith("ForSequenceClassification")
    torch.testing.assert_close(logits_of(loaded, out), expected)
    assert loaded.config.id2label == dict(enumerate(LABELS))
    dense = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert not torch.allclose(logits_of(dense, out), expected, atol=1e-3)
    linear = [one for one in loaded.base_model.modules() if isinstance(one, torch.nn.Linear)]
    kept = sum(one.weight.numel() for one in linear)
    budget = outcome(out)["budget"]
    assert budget["kept"] == kept <= budget["asked"] == int(0.6 * budget["dense"])


def test_encoder_of_the_folder_loads_alone(specialize: Callable[..., Path], tmp_path: Path) -> None:
    out = specialize(saved_classifier(tmp_path / "model", "roberta"))
    encoder = AutoModel.from_pretrained(out, trust_remote_code=True, add_pooling_layer=False)
    whole, _ = load_classifier(str(out))
    inputs = {"input_ids": torch.tensor([[2, 5, 6, 3]])}
    with torch.no_grad():
        states = [one.eval()(**inputs).last_hidden_state for one in (encoder, whole.base_model)]
    torch.testing.assert_close(*states)


def test_what_was_cut_may_be_cut_again(specialize: Callable[..., Path], tmp_path: Path) -> None:
    first = specialize(saved_classifier(tmp_path / "model", "distilbert"), "budget.fraction=0.8")
    second = specialize(first, "budget.fraction=0.8", "repair=rescale", out="second")
    budget = outcome(second)["budget"]
    assert budget["dense"] == outcome(first)["budget"]["kept"]
    assert outcome(second)["rescaled_layers"] == 2
    whole, _ = load_classifier(str(second))
    layers = layers_of(whole.base_model)
    linear = [one.weight.numel() for layer in layers for one, _ in layer.linear_layers()]
    assert sum(linear) == budget["kept"]
    loaded = AutoModelForSequenceClassification.from_pretrained(second, trust_remote_code=True)
    torch.testing.assert_close(logits_of(loaded, second), logits_of(whole, second))


def test_budget_of_everything_leaves_a_plain_model(
    specialize: Callable[..., Path], tmp_path: Path
) -> None:
    dense = saved_classifier(tmp_path / "model", "bert")
    out = specialize(dense, "budget.fraction=1.0", "text=[text,other]")
    assert not hasattr(AutoConfig.from_pretrained(out), KEY)
    logits = [
        logits_of(AutoModelForSequenceClassification.from_pretrained(one), out, SENTENCES[::-1])
        for one in (dense, out)
    ]
    torch.testing.assert_close(*logits, rtol=0, atol=0)


def test_pseudo_labels_are_what_the_dense_model_answers(
    specialize: Callable[..., Path], tmp_path: Path, data: Path
) -> None:
    dense = saved_classifier(tmp_path / "model", "bert")
    model = AutoModelForSequenceClassification.from_pretrained(dense)
    answers = logits_of(model, dense).argmax(-1).tolist()
    counts = [answers.count(number) * ROWS // 5 for number in range(3)]
    assert min(counts) > 0
    pseudo = specialize(dense, "labels=pseudo", f"examples={ROWS}")
    assert outcome(pseudo)["labels"] == dict(zip(LABELS, counts, strict=True))
    # The same as if those answers had been the data's.
    table(data, label=[answers[row % 5] for row in range(ROWS)])
    gold = specialize(dense, f"examples={ROWS}", out="gold")
    states = [load_file(one / "model.safetensors") for one in (pseudo, gold)]
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_scores_are_those_of_the_models_before_and_after(
    specialize: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense = saved_classifier(tmp_path / "model", "distilbert")
    names = [LABELS[row % 3] for row in range(5)]
    validation = table(
        tmp_path / "validation.parquet", text=SENTENCES, other=SENTENCES, label=names
    )
    out = specialize(dense, f"validation={validation}")
    written = outcome(out)
    for folder, scores in ((dense, written["before"]), (out, written["validation"]["model"])):
        model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
        right = logits_of(model, folder).argmax(-1) == torch.tensor([0, 1, 2, 0, 1])
        assert scores == {"accuracy": pytest.approx(float(right.float().mean()))}
    said = capsys.readouterr()
    assert said.err == ""
    assert "fisher: 24 examples, gold labels" in said.out
    assert written["model"] == str(dense)


def test_card_says_how_the_folder_is_used(
    specialize: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = specialize(saved_classifier(tmp_path / "model", "roberta"))
    card = (out / "README.md").read_text()
    assert card.startswith("# A pruned text classifier")
    monkeypatch.chdir(out)
    names: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    loaded = AutoModelForSequenceClassification.from_pretrained(out, trust_remote_code=True)
    torch.testing.assert_close(names["logits"](SENTENCES), logits_of(loaded, out))


def test_texts_are_cut_to_the_positions_that_a_model_has(
    specialize: Callable[..., Path], tmp_path: Path, data: Path
) -> None:
    table(data, text=["the cat runs " * 20] * ROWS)
    for family in ("roberta", "bert"):
        assert specialize(saved_classifier(tmp_path / family, family), out=f"{family}-cut").is_dir()


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return what is said to wrong input: one sentence."""
    with pytest.raises(SystemExit) as caught:
        main(["specialize", *map(str, arguments)])
    said = str(caught.value)
    assert said.startswith("error: ")
    assert said.endswith(".")
    assert len(said.splitlines()) == 1
    assert capsys.readouterr().out == ""
    return said


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_classifier(tmp_path_factory.mktemp("models") / "bert", "bert")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text": "[txt]"}, "must have a column 'txt', but has text, other, label"),
        ({"text": "text"}, "`text` must be a list, as in text=[text], but is 'text'"),
        ({"label": "gold"}, "must have a column 'gold'"),
        ({"text": None}, "A classifier needs `text` as well"),
        ({"data": None, "label": None}, "needs `data`, `label` as well"),
        ({"out": None}, "needs `out` as well"),
        ({"examples": 2}, "at least the 3 classes of bert, but is 2"),
        ({"examples": 31}, "at most the 30 training examples of bert, but is 31"),
        ({"data": "nowhere.parquet"}, "train file nowhere.parquet does not exist"),
        ({"validation": "nowhere.parquet"}, "validation file nowhere.parquet does not exist"),
        ({"tasks": "[agreement]"}, "There is no setting `tasks`"),
        ({"+tasks": "[agreement]"}, "`tasks` is not a setting of specialize_classifier"),
        ({"model": "./nowhere"}, "nowhere/config.json does not exist"),
        ({"model": "nobody/nothing"}, "that can be reached, but 'nobody/nothing' is not"),
        ({"method": "guess"}, "`method` must be one of attribution, "),
    ],
)
def test_wrong_input_is_one_sentence(
    options: dict[str, object],
    said: str,
    bert: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right = {"model": bert, "data": data, "text": "[text]", "label": "label"}
    asked = {"out": tmp_path / "out", "budget.fraction": 0.5, "examples": 24} | right | options
    given = [f"{name}={value}" for name, value in asked.items() if value and name != "model"]
    assert said in refused(capsys, "--classifier", asked["model"], *given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("label", [3, -1, "never"])
def test_label_outside_the_classes_is_refused(
    label: int | str, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [label] + [0 if isinstance(label, int) else "no"] * (ROWS - 1)
    file = table(tmp_path / "wrong.parquet", label=values)
    said = refused(capsys, *arguments(bert, file, tmp_path))
    assert f"labels (no, maybe, yes) or its position from 0, but row 0 is {label!r}" in said


def arguments(model: Path, data: Path, folder: Path) -> list[object]:
    columns = ("text=[text]", "label=label", "budget.fraction=0.5")
    return ["--classifier", model, f"data={data}", *columns, f"out={folder / 'out'}"]


def test_models_that_cannot_be_cut_are_one_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = character_tokenizer()
    decoder = GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, pad_token_id=0)
    number = CONFIGS["bert"]()
    number.num_labels = 1
    models = {
        "is a gpt2": GPT2ForSequenceClassification(decoder),
        "holds no bert.pooler.dense.bias, ": BertForMaskedLM(
            BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
        ),
        "has 1 output(s) for regression": untrained(number),
    }
    for position, (said, model) in enumerate(models.items()):
        folder = tmp_path / str(position)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        assert said in refused(capsys, *arguments(folder, data, tmp_path))


def test_folder_that_exists_is_refused(
    bert: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    assert "already exists" in refused(capsys, *arguments(bert, data, tmp_path))
