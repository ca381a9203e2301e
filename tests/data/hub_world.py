"""A hub of tiny tables with the columns that the data sets of XTREME have there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import datasets
from datasets import ClassLabel, Dataset, Features, List, Value

if TYPE_CHECKING:
    import pytest

TEXT, NUMBER = Value("string"), Value("int32")
# The features of the data sets' scripts, with the order of their class labels.
XNLI = Features(
    premise=TEXT,
    hypothesis=TEXT,
    label=ClassLabel(names=["entailment", "neutral", "contradiction"]),
)
PAWSX = Features(id=NUMBER, sentence1=TEXT, sentence2=TEXT, label=ClassLabel(names=["0", "1"]))
SPANS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
PANX = Features(tokens=List(TEXT), ner_tags=List(ClassLabel(names=SPANS)), langs=List(TEXT))
PARTS = [
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN",
    "PUNCT", "SCONJ", "SYM", "VERB", "X",
]  # fmt: skip
UDPOS = Features(tokens=List(TEXT), pos_tags=List(ClassLabel(names=PARTS)))
ANSWERS = {"text": List(TEXT), "answer_start": List(NUMBER)}
QUESTIONS = Features(id=TEXT, context=TEXT, question=TEXT, answers=ANSWERS)
PAIRS = Features(source_sentence=TEXT, target_sentence=TEXT, source_lang=TEXT, target_lang=TEXT)


class Hub:
    """Tables by repository, configuration and split; remembers which were loaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tables: dict[tuple[str, str | None], dict[str, Dataset]] = {}
        self.loaded: list[tuple[str | None, str]] = []
        monkeypatch.setattr(datasets, "get_dataset_split_names", self.splits)
        monkeypatch.setattr(datasets, "load_dataset", self.load)

    def put(
        self, path: str, name: str | None, split: str, columns: dict[str, Any], features: Features
    ) -> None:
        table = Dataset.from_dict(columns, features=features)
        self.tables.setdefault((path, name), {})[split] = table

    def splits(self, path: str, name: str | None) -> list[str]:
        if (path, name) not in self.tables:
            # As `datasets` says it.
            raise ValueError(f"BuilderConfig '{name}' not found. Available: ['one', 'other']")
        return [*self.tables[path, name]]

    def load(self, path: str, name: str | None, *, split: str) -> Dataset:
        self.loaded.append((name, split))
        return self.tables[path, name][split]


def questions(ids: list[str], contexts: list[str], answers: list[str], starts: list[int]) -> Any:
    return {
        "id": ids,
        "context": contexts,
        "question": ["who?"] * len(ids),
        "answers": [
            {"text": [answer], "answer_start": [start]}
            for answer, start in zip(answers, starts, strict=True)
        ],
    }


def put_tags(hub: Hub, *languages: str) -> None:
    for language in languages:
        for split in ("train", "validation", "test"):
            columns = {"tokens": [["a", language]], "ner_tags": [[0, 1]], "langs": [["x"] * 2]}
            hub.put("google/xtreme", f"PAN-X.{language}", split, columns, PANX)
