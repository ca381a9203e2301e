"""Labels that are read from training data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hub_world import TEXT, XNLI, Hub

from multiprune.data.hub import HubLayout
from multiprune.data.read_labels import labels_of, with_labels
from multiprune.data.source import FileSource, HubSource
from multiprune.data.streamed_source import StreamedSource
from multiprune.metrics import Accuracy
from multiprune.tasks.classification import Classification, MultiLabel
from multiprune.tasks.tagging import Tagging

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.tasks.rows import Source


def task(source: Source, kind: Any = Classification, **changes: Any) -> Any:
    settings: dict[str, Any] = {"text": ["text"], "label": "label", "labels": None}
    return kind(**settings | changes, metrics={"accuracy": Accuracy()}, source=source)


def read(one: Any, language: str | None = None) -> list[Any]:
    """Return the labels of a task as data have them."""
    return labels_of(with_labels({"mine": one}, mirror=None, language=language))["mine"]


def lines(folder: Path, labels: list[Any], **columns: list[Any]) -> FileSource:
    rows = [{"label": label, **{name: values[row] for name, values in columns.items()}}
            for row, label in enumerate(labels)]  # fmt: skip
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return FileSource(files={"train": folder / "x.jsonl"})


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (Classification, ["b", "a", "c", "a"], ["a", "b", "c"]),
        (Classification, [10, 9, 10], [9, 10]),
        (Classification, [2.0, 1.0, 2.0], [1, 2]),
        (Classification, [True, False], ["False", "True"]),
        (MultiLabel, [["b", "a"], [], ["c"]], ["a", "b", "c"]),
        (Tagging, [[3, 1], [2]], [1, 2, 3]),
    ],
)
def test_labels_are_those_of_the_training_data_sorted(
    kind: Any, values: list[Any], expected: list[Any], tmp_path: Path
) -> None:
    assert read(task(lines(tmp_path, values), kind)) == expected


def test_names_of_a_file_are_the_labels(tmp_path: Path) -> None:
    features = Features(label=ClassLabel(names=["good", "fair", "bad"]))
    Dataset.from_dict({"label": [0, 2, -1]}, features=features).to_parquet(tmp_path / "x.parquet")
    assert read(task(FileSource(files={"train": tmp_path / "x.parquet"}))) == [
        "bad",
        "fair",
        "good",
    ]


def test_labels_that_are_named_stay(tmp_path: Path) -> None:
    one = task(FileSource(files={"train": tmp_path / "nothing.csv"}), labels=[2, 1])
    assert with_labels({"mine": one}, mirror=None) == {"mine": one}
    assert labels_of({"mine": one}) == {"mine": [2, 1]}


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (Classification, ["a", "a"], r"'label' of .*x\.jsonl must hold two or more .* holds a\."),
        (
            Classification,
            [0, -1, 1],
            r"holds -1, which may be .* task\.mine\.labels must list .*\[-1, 0, 1\]",
        ),
        (Classification, [0.5, 1.0], r"holds 0\.5; a number is learned by Regression"),
        (Tagging, [["a", None], []], r"holds a\."),
    ],
)
def test_data_that_do_not_tell_labels_are_refused(
    kind: Any, values: list[Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        read(task(lines(tmp_path, values), kind))


def test_sources_without_training_rows_are_refused(tmp_path: Path) -> None:
    source = lines(tmp_path, ["a", "b"])
    with pytest.raises(
        ValueError, match="`labels` of mine is null, but there are no training rows"
    ):
        read(task(FileSource(files={"test": tmp_path / "x.jsonl"})))
    streamed = StreamedSource(files=["x.txt"], examples_per_epoch=1, evaluation=source)
    with pytest.raises(ValueError, match="can only be streamed"):
        read(task(streamed))
    with pytest.raises(ValueError, match="must name the labels that `indicators` stand for"):
        read(task(source, MultiLabel, indicators=True))


def test_labels_are_those_of_the_languages_that_are_trained_on(tmp_path: Path) -> None:
    source = lines(tmp_path, ["a", "b", "c", "d"], lang=["en", "en", "de", "de"])
    assert read(task(source, languages=["de", "en"], train_languages=["en"])) == ["a", "b"]
    assert read(task(source, languages=["de", "en"])) == ["a", "b", "c", "d"]
    assert read(task(source, languages=["de", "en"], train_languages=["en"]), "de") == ["c", "d"]


def test_labels_of_the_hub_are_its_class_names(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    columns = {"premise": ["a"], "hypothesis": ["b"], "label": [2]}
    hub.put("owner/name", "en", "train", columns, XNLI)
    hub.put("owner/text", None, "train", {"text": ["a", "b"], "topic": ["y", "x"]},
            Features(text=TEXT, topic=Value("string")))  # fmt: skip
    source = HubSource(path="owner/name", name="en")
    assert read(task(source)) == ["contradiction", "entailment", "neutral"]
    layout = HubLayout(columns={"label": "topic"})
    assert read(task(HubSource(path="owner/text", layout=layout))) == ["x", "y"]
