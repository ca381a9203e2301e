"""The tasks of ``conf/task`` on real data, where a mirror of them lies beside the project."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
from application import ROOT, composed
from hydra.utils import instantiate

from multiprune.data.selection import in_languages
from multiprune.data.streamed_source import StreamedSource
from multiprune.tasks.classification import MultiLabel, Regression
from multiprune.tasks.labelled import LabelledTask
from multiprune.tasks.languages import languages_of
from multiprune.tasks.masked_language import MaskedLanguage
from multiprune.tasks.question_answering import QuestionAnswering
from multiprune.tasks.tagging import Tagging

if TYPE_CHECKING:
    from multiprune.tasks.task import Task

MIRROR = ROOT.parent / "shared" / "data"
ENCODER = ROOT.parent / "shared" / "models" / "minilm-l6"
SUITES = {"demo", "glue", "glue_core", "english", "xtreme"}
#: Its file is somebody's own.
EXAMPLE = "example"
TASKS = sorted(
    file.stem
    for file in (ROOT / "conf" / "task").glob("*.yaml")
    if file.stem not in {*SUITES, EXAMPLE} and "HubSource" in file.read_text()
)
#: Retrieval whose data the mirror does not have.
ABSENT = {"bucc"}
RETRIEVALS = sorted(file.stem for file in (ROOT / "conf" / "retrieval").glob("*.yaml"))


def test_there_are_tasks() -> None:
    assert len(TASKS) >= 29
    assert set(RETRIEVALS) > ABSENT


@pytest.mark.slow
@pytest.mark.skipif(not MIRROR.is_dir(), reason=f"there is no mirror at {MIRROR}")
@pytest.mark.parametrize("name", TASKS)
def test_task_fits_its_data(name: str) -> None:
    task = instantiate(composed(f"task={name}").task[name], _convert_="all")
    languages, classes = set(), set()
    for split in ("train", "validation", "test"):
        if split == "train" and isinstance(task.source, StreamedSource):
            assert any(task.source.corpus(task.text[0], MIRROR).pieces[0].texts())
            continue
        rows = task.source.load(split, mirror=MIRROR)
        if rows is None:
            assert split == "test"
            continue
        task.check_columns(rows)
        labels = task.encode_labels(rows)
        assert len(labels) == len(rows.table)
        if isinstance(task, MaskedLanguage):
            assert any(rows.table[task.text[0]][:])
            continue
        classes |= classes_of(task, labels)
        # There is something to train on, and each language is somewhere.
        assert in_languages(rows, task, split) is not None
        if task.languages:
            languages |= set(languages_of(rows, task.languages))
    assert languages == set(task.languages)
    expected = len(task.labels) if isinstance(task, LabelledTask) else 2
    assert isinstance(task, MaskedLanguage) or len(classes) == expected


@pytest.mark.skipif(not MIRROR.is_dir(), reason=f"there is no mirror at {MIRROR}")
@pytest.mark.parametrize("name", sorted({*RETRIEVALS} - ABSENT))
def test_retrieval_fits_its_data(name: str) -> None:
    one = instantiate(composed(f"retrieval={name}").retrieval[name], _convert_="all")
    for split in one.splits:
        rows = one.source.load(split, mirror=MIRROR)
        one.check_rows(rows)
        assert set(languages_of(rows, one.languages)) == set(one.languages)


def classes_of(task: Task, labels: list[Any]) -> set[Any]:
    """Return the classes that occur, or which half of a scale or a context labels are in."""
    if isinstance(task, QuestionAnswering):
        return {start > 100 for start, _ in labels}
    if isinstance(task, Tagging):
        return {*chain(*labels)}
    if isinstance(task, MultiLabel):
        return {index for present in labels for index, one in enumerate(present) if one}
    return {label > 2.5 for label in labels} if isinstance(task, Regression) else set(labels)


@pytest.mark.skipif(not ENCODER.is_dir(), reason=f"there is no encoder at {ENCODER}")
def test_real_encoder_has_as_many_linear_weights_as_its_documentation_says() -> None:
    from multiprune.budget import ParameterLedger
    from multiprune.models.encoder import pretrained

    ledger = ParameterLedger.of(pretrained(str(ENCODER)).model)
    assert ledger.dense["encoder_linear"] == 10_616_832
    assert sum(ledger.dense.values()) == 22_713_216 - 384 * 384 - 384  # less the pooler
