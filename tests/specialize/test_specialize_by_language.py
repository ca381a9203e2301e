"""``multiprune specialize languages=…``, on a model whose languages have their own neurons."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import pytest
import torch
from hydra.utils import instantiate
from pyarrow import parquet
from run_folders import record_with
from torch import nn

import multiprune
from multiprune.cli import main
from multiprune.export.checkpoint import save_model
from multiprune.metrics import SpanF1
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.specialize import specialize as module
from multiprune.specialize.calibration_set import calibration_set
from multiprune.tasks.iob2 import spans_of
from multiprune.tasks.synthetic import WORDS

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.data.batches import EncodedTask
    from multiprune.specialize.calibration_set import CalibrationSet

TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]
#: Words of each language; of "sw" there are no rows to train on.
SPOKEN = {"de": WORDS[:20], "en": WORDS[20:40], "sw": WORDS[40:60]}
LANGUAGES = {
    "train": ["de"] * 40 + ["en"] * 30,
    "validation": ["en", "de", "sw"] * 12,
}
#: Half of the neurons, and the attention.
BUDGET = ("granularity=[neurons]", "budget.fraction=0.8334", "examples=24")


def sentences(languages: list[str], seed: int) -> dict[str, list[Any]]:
    rng = Random(seed)
    words = [rng.choices(SPOKEN[one], k=rng.randint(3, 8)) for one in languages]
    return {
        "text": [" ".join(one) for one in words],
        "tokens": words,
        "label": [rng.randrange(2) for _ in words],
        "tags": [rng.choices(TAGS, k=len(one)) for one in words],
        "lang": languages,
    }


def task_config(**settings: Any) -> dict[str, Any]:
    metric = {name: {"_target_": path} for name, path in settings.pop("metrics").items()}
    source = {"_target_": "multiprune.data.source.HubSource", "path": None, "mirror": "corpus"}
    several = {"languages": ["en", "de", "sw", "el"], "train_languages": ["en"]}
    return {"metrics": metric, "source": source, **several, **settings}


TASKS = {
    "news": task_config(
        _target_="multiprune.tasks.classification.Classification",
        text=["text"],
        label="label",
        labels=["no", "yes"],
        metrics={"accuracy": "multiprune.metrics.Accuracy"},
    ),
    "names": task_config(
        _target_="multiprune.tasks.spans.SpanTagging",
        text=["tokens"],
        label="tags",
        labels=TAGS,
        metrics={"f1": "multiprune.metrics.SpanF1"},
    ),
}


def model_of_two_halves() -> tuple[MultitaskModel, Any]:
    """Give German words the first half of all dimensions and neurons, all others the second."""
    torch.manual_seed(0)
    encoder = from_scratch(layers=1, hidden=16, heads=2, intermediate=16)
    model = MultitaskModel(encoder.model, instantiate(TASKS, _convert_="all"))
    get = encoder.model.get_parameter
    with torch.no_grad():
        for name in ("position_embeddings", "token_type_embeddings", "word_embeddings"):
            get(f"embeddings.{name}.weight").zero_()
        for number, language in enumerate(SPOKEN):
            tokens = encoder.tokenizer.convert_tokens_to_ids([*SPOKEN[language]])
            mine = torch.randn(len(SPOKEN[language]), 8)
            half = slice(8 * min(number, 1), 8 * min(number, 1) + 8)
            # With a mean of 0 the other half stays 0, also behind a norm.
            get("embeddings.word_embeddings.weight")[tokens, half] = mine - mine.mean(1, True)
        get("encoder.layer.0.attention.self.value.weight").zero_()
        neurons = get("encoder.layer.0.intermediate.dense.weight")
        nn.init.normal_(neurons)
        neurons[8:, :8] = 0
        neurons[:8, 8:] = 0
        for name in TASKS:
            nn.init.normal_(model.heads[name].get_parameter("output.weight"))
    return model, encoder.tokenizer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write what a run would leave."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "data" / "corpus").mkdir(parents=True)
    for seed, (split, languages) in enumerate(LANGUAGES.items()):
        rows = pyarrow.table(sentences(languages, seed))
        parquet.write_table(rows, folder / "data" / "corpus" / f"{split}.parquet")
    model, tokenizer = model_of_two_halves()
    save_model(folder / "model", model, tokenizer, instantiate(TASKS, _convert_="all"))
    data = {
        "_target_": "multiprune.data.datamodule.MultitaskDataModule",
        "batch_size": 8,
        "max_length": 32,
        "mirror": str(folder / "data"),
        "mixing": {"_target_": "multiprune.data.mixing.ProportionalMixing"},
        "cache": str(folder / "cache"),
    }
    config = {"task": TASKS, "data": data, "seed": 0}
    record_with(config=config).write(folder)
    return folder


def specialize(run: Path, out: Path, *options: str) -> Path:
    main(["specialize", str(run), f"out={out}", *BUDGET, *options])
    return out


@pytest.fixture(scope="module")
def by_language(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return specialize(run, tmp_path_factory.mktemp("out") / "specialized", "languages=[]")


def outcome(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "specialized.json").read_text())
    return content


def spoken(tokens: list[list[int]], run: Path) -> set[str]:
    """Return the languages that words of rows are of."""
    tokenizer = multiprune.load(run).tokenizer
    words = {word for row in tokens for word in tokenizer.convert_ids_to_tokens(row)}
    return {language for language, known in SPOKEN.items() if words & {*known}}


def test_every_task_and_language_that_can_be_trained_has_a_model_of_its_own(
    by_language: Path,
) -> None:
    folders = sorted(one.name for one in by_language.iterdir())
    assert folders == ["names.de", "names.en", "news.de", "news.en"]
    for folder in folders:
        task, language = folder.split(".")
        written = outcome(by_language / folder)
        assert (written["task"], written["language"]) == (task, language)
        assert list(multiprune.load(by_language / folder).meaning) == [task]


def test_each_language_keeps_the_neurons_that_its_words_go_through(
    run: Path, by_language: Path
) -> None:
    def neurons(folder: Path) -> torch.Tensor:
        path = "encoder.layer.0.intermediate.dense.weight"
        weight: torch.Tensor = multiprune.load(folder).encoder.get_parameter(path)
        return weight

    whole = neurons(run)
    for task in TASKS:
        torch.testing.assert_close(neurons(by_language / f"{task}.de"), whole[:8])
        torch.testing.assert_close(neurons(by_language / f"{task}.en"), whole[8:])


@pytest.mark.parametrize("labels", ["gold", "pseudo"])
def test_examples_are_of_the_language_alone_and_without_one_of_all_that_are_trained(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: str
) -> None:
    seen: list[set[str]] = []

    def recorded(encoded: EncodedTask, *others: Any) -> CalibrationSet:
        drawn = calibration_set(encoded, *others)
        tokens = [row for one in drawn.batches for row in one.batch.inputs["input_ids"].tolist()]
        assert len(tokens) == 24
        seen.append(spoken(tokens, run))
        return drawn

    monkeypatch.setattr(module, "calibration_set", recorded)
    for number, options in enumerate([["languages=[en,de]"], ["languages=[]"], []]):
        only = ["tasks=[news]", "evaluate=false", f"labels={labels}", *options]
        specialize(run, tmp_path / str(number), *only)
    assert seen == [{"en"}, {"de"}, {"en"}, {"de"}, {"de", "en"}]


def rows_in(language: str) -> list[dict[str, Any]]:
    columns = sentences(LANGUAGES["validation"], 1)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [row for row in rows if row["lang"] == language]


def scores_by_hand(folder: Path, language: str, task: str) -> dict[str, float]:
    """Return the scores of a model that was written, on the rows in one language."""
    model, rows = multiprune.load(folder), rows_in(language)
    if task == "news":
        answers = model.logits("news", [row["text"] for row in rows]).argmax(-1).tolist()
        right = [one == row["label"] for one, row in zip(answers, rows, strict=True)]
        return {"accuracy": float(np.mean(right))}
    found = []
    for row in rows:
        # A token each, between two special ones.
        tags = model.logits("names", [row["tokens"]]).argmax(-1)[0, 1 : 1 + len(row["tokens"])]
        found.append(spans_of([TAGS[tag] for tag in tags.tolist()]))
    return {"f1": SpanF1()(found, [spans_of(row["tags"]) for row in rows])}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("language", ["de", "en"])
def test_scores_are_those_on_rows_in_the_language_alone(
    run: Path, by_language: Path, task: str, language: str
) -> None:
    written = outcome(by_language / f"{task}.{language}")
    after = scores_by_hand(by_language / f"{task}.{language}", language, task)
    ((metric, value),) = after.items()
    expected = {metric: value, f"{metric}.{language}": value}
    assert written["validation"][task] == pytest.approx(expected)
    before = scores_by_hand(run, language, task)[metric]
    assert written["before"][metric] == pytest.approx(before)


def test_one_model_for_all_languages_has_scores_of_each(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = specialize(run, tmp_path / "out")
    shown = capsys.readouterr().out
    assert sorted(one.name for one in out.iterdir()) == sorted(TASKS)
    for task in TASKS:
        written, expected = outcome(out / task), {}
        for language in SPOKEN:
            for metric, value in scores_by_hand(out / task, language, task).items():
                expected[f"{metric}.{language}"] = value
        expected[metric] = float(np.mean([*expected.values()]))
        assert written["language"] is None
        assert written["validation"][task] == pytest.approx(expected)
        for name, value in expected.items():
            assert f"{value:.4f}" in next(one for one in shown.splitlines() if f" {name} " in one)


def test_languages_without_a_model_are_named(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    specialize(run, tmp_path / "out", "languages=[]", "tasks=[news]")
    assert caplog.messages == ["news has no training rows, and no model, in sw, el."]


def test_same_request_gives_the_same_models(
    run: Path, by_language: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    again = specialize(run, tmp_path / "out", "languages=[de]", "tasks=[news]")
    assert not caplog.messages
    first, second = (one / "news.de" / "model.safetensors" for one in (by_language, again))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["languages=[sw]"], "languages that news has training rows in (en, de), but names sw."),
        (["languages=[de,fr]"], "training rows in (en, de), but names fr."),
        (
            ["languages=[]", "examples=31"],
            "at most the 30 training examples of news in en, but is 31: draw fewer, or leave it "
            "out of `languages`.",
        ),
    ],
)
def test_languages_that_cannot_be_are_refused_before_anything_is_written(
    run: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        specialize(run, tmp_path / "out", *options)
    assert str(caught.value).startswith("error: ")
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_task_without_languages_has_no_models_by_language(run: Path, tmp_path: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    del results["config"]["task"]["news"]["languages"]
    del results["config"]["task"]["news"]["train_languages"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    for option in ("languages=[]", "languages=[de]"):
        with pytest.raises(SystemExit, match="`languages` does not apply to news"):
            specialize(run, tmp_path / "out", option, f"data_of={tmp_path}")


def test_models_by_language_are_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="There is no setting `languages`"):
        main(["specialize", "--classifier", str(tmp_path), "languages=[]", "budget.fraction=0.5"])
