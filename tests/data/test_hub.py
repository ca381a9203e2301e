"""Tasks in several languages on a hub of tiny tables with the columns that its data sets have."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from application import composed
from datasets import ClassLabel, Dataset, Features, List
from hub_world import (
    PAIRS,
    PANX,
    PAWSX,
    QUESTIONS,
    SPANS,
    TEXT,
    UDPOS,
    XNLI,
    Hub,
    put_tags,
    questions,
)
from hydra.utils import instantiate

from multiprune.data.datamodule import MultitaskDataModule
from multiprune.data.hub import HubLayout, aligned_start
from multiprune.data.mixing import ProportionalMixing
from multiprune.data.selection import wanted_languages
from multiprune.data.source import HubSource
from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from multiprune.tasks.task import Task


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(monkeypatch)


def task_of(name: str, *overrides: str) -> Task:
    task: Task = instantiate(composed(f"task={name}", *overrides).task[name], _convert_="all")
    return task


def rows_of(source: Any, split: str, languages: Sequence[str] | None = None) -> Rows:
    rows: Rows | None = source.load(split, mirror=None, languages=languages)
    assert rows is not None
    return rows


def assert_same(task: Task, rows: Rows, mirror: Mapping[str, Any]) -> None:
    """Compare what a task reads of rows with what it reads of those that a mirror would have."""
    expected = Rows(Dataset.from_dict(dict(mirror)), "mirror", "")
    task.check_columns(rows)
    assert task.texts(rows) == task.texts(expected)
    assert task.encode_labels(rows) == task.encode_labels(expected)
    for column in ("lang", *filter(None, [task.parallel])):
        assert rows.table[column][:] == mirror[column]


def test_pairs_have_labels_languages_and_numbers_of_their_translations(hub: Hub) -> None:
    for language in ("de", "en"):
        columns = {
            "premise": [f"{language} {row}" for row in range(3)],
            "hypothesis": ["a", "b", "c"],
            "label": [2, 0, 1],
        }
        hub.put("facebook/xnli", language, "validation", columns, XNLI)
    task = task_of("xnli")
    mirror = {
        "premise": ["de 0", "de 1", "de 2", "en 0", "en 1", "en 2"],
        "hypothesis": ["a", "b", "c"] * 2,
        "label": [2, 0, 1, 2, 0, 1],
        "lang": ["de"] * 3 + ["en"] * 3,
        "idx": [0, 1, 2, 0, 1, 2],
    }
    assert_same(task, rows_of(task.source, "validation", ["de", "en"]), mirror)


def test_paraphrases_keep_their_numbers(hub: Hub) -> None:
    for language, label in (("fr", 0), ("zh", 1)):
        columns = {
            "id": [7, 9],
            "sentence1": ["x", "y"],
            "sentence2": ["z", "z"],
            "label": [1, label],
        }
        hub.put("google-research-datasets/paws-x", language, "test", columns, PAWSX)
    task = task_of("pawsx")
    mirror = {
        "sentence1": ["x", "y"] * 2,
        "sentence2": ["z"] * 4,
        "label": [1, 0, 1, 1],
        "lang": ["fr", "fr", "zh", "zh"],
        "idx": [7, 9, 7, 9],
    }
    assert_same(task, rows_of(task.source, "test", ["zh", "fr"]), mirror)


@pytest.mark.parametrize("order", [SPANS, SPANS[::-1]])
def test_spans_are_named_whatever_order_the_hub_has(hub: Hub, order: list[str]) -> None:
    features = Features(**PANX | {"ner_tags": List(ClassLabel(names=order))})
    tags = [["B-LOC", "O"], ["B-PER", "I-PER"]]
    columns = {
        "tokens": [["Ulm", "liegt"], ["Ada", "L."]],
        "ner_tags": [[order.index(one) for one in row] for row in tags],
        "langs": [["de", "de"]] * 2,
    }
    hub.put("google/xtreme", "PAN-X.de", "train", columns, features)
    task = task_of("panx")
    mirror = {"tokens": columns["tokens"], "ner_tags": tags, "lang": ["de", "de"]}
    assert_same(task, rows_of(task.source, "train", ["de"]), mirror)


def test_parts_of_speech_have_the_name_and_the_tags_of_the_mirror(hub: Hub) -> None:
    columns = {"tokens": [["Hunde", "bellen"]], "pos_tags": [[7, 15]]}
    hub.put("google/xtreme", "udpos.German", "test", columns, UDPOS)
    task = task_of("udpos")
    mirror = {"tokens": [["Hunde", "bellen"]], "upos": [["NOUN", "VERB"]], "lang": ["de"]}
    assert_same(task, rows_of(task.source, "test", ["de"]), mirror)


@pytest.mark.parametrize(
    ("name", "path", "configuration", "split"),
    [
        ("xquad", "google/xquad", "xquad.ar", "validation"),
        ("mlqa", "google/xtreme", "MLQA.ar.ar", "test"),
    ],
)
def test_answers_stand_where_they_are_though_contexts_lost_their_blanks(
    hub: Hub, name: str, path: str, configuration: str, split: str
) -> None:
    # " Ada was here" and "  Bo and Bo" as they were, with starts 1 and 9.
    columns = questions(["1", "2"], ["Ada was here", "Bo and Bo"], ["Ada", "Bo"], [1, 9])
    hub.put(path, configuration, split, columns, QUESTIONS)
    task = task_of(name)
    mirror = {
        "id": ["1", "2"],
        "context": columns["context"],
        "question": ["who?"] * 2,
        "answer_text": [["Ada"], ["Bo"]],
        "answer_start": [[0], [7]],
        "lang": ["ar", "ar"],
    }
    assert_same(task, rows_of(task.source, "test", ["ar"]), mirror)


@pytest.mark.parametrize("name", ["squad", "xquad", "mlqa"])
def test_squad_has_answers_and_starts_in_columns(hub: Hub, name: str) -> None:
    columns = questions(["1"], ["Here is Ada"], ["Ada"], [8])
    hub.put("rajpurkar/squad", None, "train", columns, QUESTIONS)
    task = task_of(name)
    rows = rows_of(task.source, "train", task.train_languages)
    assert rows.table["answer_text"][:] == [["Ada"]]
    assert task.encode_labels(rows) == [(8, 11)]
    assert ("lang" in rows.table.column_names) == bool(task.languages)


def test_languages_of_one_configuration_are_told_by_ids(hub: Hub) -> None:
    ids = ["english-1-0", "finnish-2-0", "korean-3-0", "english-4-1"]
    columns = questions(ids, ["Ada"] * 4, ["Ada"] * 4, [0, 0, 1, 0])
    hub.put("google/xtreme", "tydiqa", "train", columns, QUESTIONS)
    task = task_of("tydiqa")
    for languages, kept in ((["en"], [0, 3]), (task.languages, [0, 2, 3])):
        mirror = {
            "context": ["Ada"] * len(kept),
            "question": ["who?"] * len(kept),
            "answer_text": [["Ada"]] * len(kept),
            "answer_start": [[0]] * len(kept),
            "lang": ["ko" if row == 2 else "en" for row in kept],
        }
        assert_same(task, rows_of(task.source, "train", languages), mirror)
    assert rows_of(task.source, "train").table["lang"][:] == ["en", "fi", "ko", "en"]


def test_id_of_no_language_is_named_by_its_row_of_the_whole_table(hub: Hub) -> None:
    count = 1300
    ids = ["english-1"] * (count - 1) + ["klingon-1"]
    columns = questions(ids, ["Ada"] * count, ["Ada"] * count, [0] * count)
    hub.put("google/xtreme", "tydiqa", "train", columns, QUESTIONS)
    with pytest.raises(ValueError, match=r"but row 1299 is 'klingon-1'\.$"):
        task_of("tydiqa").source.load("train", mirror=None)


def test_id_of_no_language_is_named(hub: Hub) -> None:
    hub.put("google/xtreme", "tydiqa", "train", questions(["12"], ["Ada"], ["Ada"], [0]), QUESTIONS)
    with pytest.raises(ValueError, match=r"'id' of google/xtreme tydiqa train .* row 0 is '12'"):
        task_of("tydiqa").source.load("train", mirror=None)


def test_translations_have_no_line_breaks(hub: Hub) -> None:
    one = instantiate(composed("retrieval=tatoeba").retrieval.tatoeba, _convert_="all")
    for language in one.languages:
        columns = {
            "source_sentence": [f"{language}\n"], "target_sentence": ["yes\n"],
            "source_lang": ["x"], "target_lang": ["eng"],
        }  # fmt: skip
        configuration = one.source.layout.configurations[language]
        hub.put("google/xtreme", configuration, "validation", columns, PAIRS)
    rows = rows_of(one.source, "test")
    one.check_rows(rows)
    assert rows.table["sentence"][:] == rows.table["lang"][:] == one.languages
    assert set(rows.table["sentence_en"][:]) == {"yes"}
    configuration = one.source.layout.configurations
    assert (configuration["de"], configuration["zh"]) == ("tatoeba.deu", "tatoeba.cmn")


@pytest.mark.parametrize("name", ["xnli", "pawsx", "udpos", "panx", "tydiqa"])
def test_each_language_of_a_task_is_somewhere_on_the_hub(name: str) -> None:
    task = task_of(name)
    assert isinstance(task.source, HubSource)
    layout = task.source.layout
    assert set(task.languages) <= set(layout.configurations or layout.prefixes)


@pytest.mark.parametrize("language", [None, "de"])
def test_only_what_a_run_uses_is_asked_for(hub: Hub, tmp_path: Path, language: str | None) -> None:
    task = task_of("panx")
    put_tags(hub, *task.languages)
    module = MultitaskDataModule(
        tasks={"panx": task},
        tokenizer=character_tokenizer(),
        max_length=16,
        batch_size=1,
        mixing=ProportionalMixing(),
        language=language,
        cache=str(tmp_path),
    )
    module.setup()
    train, others = ("en", task.languages) if language is None else (language, [language])
    expected = {(f"PAN-X.{one}", split) for one in others for split in ("validation", "test")}
    assert set(hub.loaded) == expected | {(f"PAN-X.{train}", "train")}
    rows = module.rows("panx", "train")
    assert rows is not None
    assert rows.table["lang"][:] == [train]


def test_wanted_languages_are_those_of_the_split() -> None:
    task = task_of("tydiqa")
    assert wanted_languages(task, "train") == ["en"]
    assert wanted_languages(task, "test") == ["en", "ko", "sw"]
    assert wanted_languages(task, "train", "ko") == ["ko"]
    assert wanted_languages(task_of("squad"), "train") is None


def test_language_without_the_split_is_left_out_unless_it_is_the_only_one(hub: Hub) -> None:
    put_tags(hub, "de", "yo")
    del hub.tables["google/xtreme", "PAN-X.yo"]["train"]
    source = task_of("panx").source
    rows = rows_of(source, "train", ["de", "yo"])
    assert rows.table["lang"][:] == ["de"]
    assert rows.origin == "google/xtreme PAN-X.de train"
    with pytest.raises(ValueError, match="google/xtreme train does not exist"):
        source.load("train", mirror=None, languages=["yo"])


def test_large_tables_are_put_into_their_form_some_rows_at_a_time(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, sizes = 2500, []
    starts = [row % 5 for row in range(count)]
    columns = questions(
        [f"{('finnish', 'korean')[row % 2]}-{row}" for row in range(count)],
        ["." * (row % 3) + "Ada" for row in range(count)],
        ["Ada"] * count,
        starts,
    )
    features = Features(**QUESTIONS | {"label": ClassLabel(names=["no", "yes"])})
    hub.put("owner/name", None, "train", columns | {"label": [1, 0] * (count // 2)}, features)
    layout = HubLayout(
        prefixes={"fi": "finnish", "ko": "korean"},
        columns={"text": "answers.text", "start": "answers.answer_start"},
        named=["label"],
        numbered="idx",
        aligned=["context", "text", "start"],
    )
    languages = type(layout)._languages

    def noted(self: HubLayout, ids: Sequence[str], *rest: Any) -> list[str]:
        sizes.append(len(ids))
        return languages(self, ids, *rest)

    monkeypatch.setattr(HubLayout, "_languages", noted)
    rows = layout.load("owner/name", None, "train", ["ko"])
    assert rows is not None
    kept = range(1, count, 2)
    assert rows.table["idx"][:] == [*kept]
    assert rows.table["lang"][:] == ["ko"] * len(kept)
    assert rows.table["label"][:] == ["no"] * len(kept)
    assert rows.table["start"][:] == [[row % 3] for row in kept]
    assert sum(sizes) == count
    assert max(sizes) <= 1000
    # What is made lies on the disk, and is read the next time.
    assert rows.table.cache_files
    again = layout.load("owner/name", None, "train", None)
    assert again is not None
    assert again.table["lang"][:] == ["fi", "ko"] * (count // 2)
    assert sum(sizes) == count
    other = replace(layout, aligned=[]).load("owner/name", None, "train", None)
    assert other is not None
    assert other.table["start"][:] == [[one] for one in starts]


def test_fingerprint_follows_rows_and_languages(hub: Hub) -> None:
    put_tags(hub, "de", "en")
    source = task_of("panx").source

    def fingerprint(*languages: str) -> str:
        return rows_of(source, "train", languages).fingerprint

    first = fingerprint("de", "en")
    assert fingerprint("de", "en") == first
    assert len({first, fingerprint("de"), fingerprint("en")}) == 3
    put_tags(hub, "en")
    columns = {"tokens": [["b", "en"]], "ner_tags": [[0, 1]], "langs": [["x"] * 2]}
    hub.put("google/xtreme", "PAN-X.en", "train", columns, PANX)
    assert fingerprint("de", "en") != first


def test_missing_configuration_is_told_in_a_sentence(hub: Hub) -> None:
    put_tags(hub, "de")
    expected = r"must have google/xtreme PAN-X\.fr unless `data\.mirror` is set, but it does not: "
    with pytest.raises(ValueError, match=expected + "BuilderConfig 'PAN-X.fr' not found"):
        task_of("panx").source.load("test", mirror=None, languages=["de", "fr"])


def test_language_that_no_configuration_has_is_named(hub: Hub) -> None:
    put_tags(hub, "de")
    with pytest.raises(ValueError, match="where rows in fi, et are, but knows only ar, bn, de"):
        task_of("panx").source.load("test", mirror=None, languages=["fi", "de", "et"])


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (HubLayout(columns={"x": "y"}), "must have a column 'y', but has sentence1"),
        (HubLayout(named=["z"]), "must have a column 'z'"),
        (HubLayout(named=["sentence1"]), "'sentence1' of owner/name train must hold class labels"),
    ],
)
def test_other_columns_than_expected_are_named(hub: Hub, layout: HubLayout, expected: str) -> None:
    hub.put("owner/name", None, "train", {"sentence1": ["x"]}, Features(sentence1=TEXT))
    with pytest.raises(ValueError, match=expected):
        HubSource(path="owner/name", mirror="x", layout=layout).load("train", mirror=None)


def test_layout_that_says_two_things_is_refused() -> None:
    with pytest.raises(ValueError, match="either `configurations` or `prefixes`, not both"):
        HubLayout(configurations={"de": "x"}, prefixes={"de": "y"})
    with pytest.raises(
        ValueError, match=r"must name contexts, answers and starts, but names \['a'\]"
    ):
        HubLayout(aligned=["a"])


@pytest.mark.parametrize(
    ("start", "expected"),
    [(0, 0), (3, 3), (4, 3), (2, 3), (1, 0), (6, 6), (22, 6), (23, 23), (40, 40)],
)
def test_start_is_moved_to_the_nearest_answer_that_is_not_far(start: int, expected: int) -> None:
    assert aligned_start("ab ab ab", "ab", start) == expected
