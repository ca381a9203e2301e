from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.metrics.pairwise import cosine_similarity

from multiprune.data.source import HubSource
from multiprune.tasks import mining
from multiprune.tasks.mining import Mined, Mining, mine
from multiprune.tasks.retrieval import EncodedRows
from multiprune.tasks.rows import Rows

if TYPE_CHECKING:
    from torch import Tensor


def task(**changes: Any) -> Mining:
    arguments: dict[str, Any] = {
        "text": ["sentence", "english"],
        "source": HubSource(path=None, mirror="nowhere"),
        "languages": ["de"],
    }
    return Mining(**arguments | changes)


def rows(sentences: list[Any], english: list[Any], languages: list[str] | None = None) -> Rows:
    columns = {
        "sentence": sentences,
        "english": english,
        "lang": ["de"] * len(sentences) if languages is None else languages,
    }
    return Rows(Dataset.from_dict(columns), "corpus.parquet", "")


def vectors(count: int, other: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(count)
    first = torch.randn(count, 6, generator=draw)
    second = first[torch.arange(other) % count] + torch.randn(other, 6, generator=draw)
    return first + 1, second + 1  # cosines above zero, mostly


def by_brute_force(first: Tensor, second: Tensor, neighbors: int) -> list[tuple[int, int, float]]:
    """Score every pair; then take the best pair of all that some sentence likes best, and so on."""
    scores = cosine_similarity(first.numpy(), second.numpy())
    in_row = in_column = scores
    if neighbors:
        rank_in_row = (-scores).argsort(1).argsort(1)
        rank_in_column = (-scores).argsort(0).argsort(0)
        of_rows = np.sort(scores, 1)[:, -neighbors:].mean(1)
        of_columns = np.sort(scores, 0)[-neighbors:].mean(0)
        scores = scores / ((of_rows[:, None] + of_columns[None]) / 2)
        in_row = np.where(rank_in_row < neighbors, scores, -np.inf)
        in_column = np.where(rank_in_column < neighbors, scores, -np.inf)
    liked = (in_row == in_row.max(1, keepdims=True)) | (in_column == in_column.max(0))
    taken: list[tuple[int, int, float]] = []
    pairs = product(range(len(first)), range(len(second)))
    for one, other in sorted(pairs, key=lambda pair: -scores[pair]):
        free = all(one != row and other != column for row, column, _ in taken)
        if liked[one, other] and free:
            taken.append((one, other, float(scores[one, other])))
    return taken


@pytest.mark.parametrize("neighbors", [0, 1, 3, 100])
@pytest.mark.parametrize("counts", [(20, 30), (30, 20), (1, 5), (5, 1)])
def test_pairs_are_those_of_a_search_through_all(counts: tuple[int, int], neighbors: int) -> None:
    first, second = vectors(*counts)
    expected = by_brute_force(first, second, neighbors)
    pairs, scores = mine(first, second, neighbors=neighbors)
    assert pairs == [(one, other) for one, other, _ in expected]
    assert scores.tolist() == pytest.approx([score for *_, score in expected])


def test_mutual_nearest_neighbours_are_pairs() -> None:
    first, second = vectors(40, 60)
    cosines = torch.from_numpy(cosine_similarity(first.numpy(), second.numpy()))
    there, back = cosines.argmax(1).tolist(), cosines.argmax(0).tolist()
    mutual = {(row, other) for row, other in enumerate(there) if back[other] == row}
    assert 5 < len(mutual) < 40
    assert mutual <= set(mine(first, second)[0])


def test_length_of_a_vector_does_not_count() -> None:
    first, second = vectors(10, 12)
    longer = second * torch.arange(1, 13)[:, None]
    assert mine(first, longer)[0] == mine(first, second)[0]


def test_little_memory_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = vectors(20, 30)
    whole = mine(first, second, neighbors=2)
    monkeypatch.setattr(mining, "_COSINES", 45)
    pairs, scores = mine(first, second, neighbors=2)
    assert pairs == whole[0]
    torch.testing.assert_close(scores, whole[1])


def f1(mined: Mined, threshold: float) -> float:
    """By its definition, the harmonic mean."""
    taken = [
        right for score, right in zip(mined.scores, mined.right, strict=True) if score >= threshold
    ]
    precision, recall = sum(map(int, taken)) / len(taken), sum(map(int, taken)) / mined.true
    return float(2 / (1 / precision + 1 / recall)) if precision else 0.0


@pytest.mark.parametrize("seed", range(6))
def test_no_threshold_is_better_than_the_best(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    # Many are equal.
    scores = (
        (torch.rand(40, generator=draw, dtype=torch.float64) * 15).round().sort(descending=True)
    )
    right = torch.rand(40, generator=draw) < scores.values / 15
    mined = Mined(scores.values, right, int(right.sum()) + 3)
    best = max(f1(mined, float(one)) for one in scores.values)
    assert f1(mined, mined.best_threshold()) == pytest.approx(best)
    assert mined.compared(mined.best_threshold())["f1"] == pytest.approx(best)


def test_threshold_is_halfway_between_what_is_taken_and_what_is_not() -> None:
    scores = torch.tensor([0.9, 0.8, 0.5, 0.4], dtype=torch.float64)
    some = Mined(scores, torch.tensor([True, True, False, False]), 2)
    assert some.best_threshold() == pytest.approx(0.65)
    assert some.compared(0.65) == {"f1": 1.0, "precision": 1.0, "recall": 1.0}
    every = Mined(scores, torch.tensor([True] * 4), 4)
    assert every.best_threshold() == pytest.approx(0.4)
    assert every.compared(2.0) == {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    assert every.compared(0.85) == {"f1": pytest.approx(0.4), "precision": 1.0, "recall": 0.25}


def test_threshold_of_one_split_is_applied_to_the_other() -> None:
    # By angle: sentences at 0, 90 and 180 degrees, of which the last has no translation.
    def at(*degrees: float) -> Tensor:
        angles = torch.tensor(degrees).deg2rad()
        return torch.stack([angles.cos(), angles.sin()], 1)

    known = rows(["a", "b", "c", None], ["x", "y", None, "z"])
    # Cosines of 10, 20 and 60 degrees; the two pairs are right, so the threshold is halfway.
    validation = EncodedRows(known, at(0, 90, 180, 0), at(10, 110, 0, 240))
    threshold = float((at(20) + at(60))[0, 0] / 2)
    assert 0.5 < threshold < 0.94
    other = rows(["a", "b", "c", None], ["x", "y", None, "z"])
    # A right pair at 10 degrees, one too far off at 50; a wrong one at 30.
    test = EncodedRows(other, at(0, 90, 180, 0), at(10, 40, 0, 210))
    found = task().scores({"validation": validation, "test": test})
    expected = {"f1": 0.5, "precision": 0.5, "recall": 0.5}
    assert found == pytest.approx(expected | {f"{name}.de": one for name, one in expected.items()})


def test_languages_are_mined_apart() -> None:
    known = rows(["a", "b", "c", "d"], ["w", "x", "y", "z"], ["de", "sw", "de", "sw"])
    states = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    right = EncodedRows(known, states, states)
    crossed = EncodedRows(known, states, states[[0, 3, 2, 1]])
    one = task(languages=["de", "sw"], language_groups={"african": ["sw"]})
    assert set(one.scores({"validation": right, "test": right}).values()) == {1.0}
    found = one.scores({"validation": right, "test": crossed})
    assert (found["f1"], found["f1.de"], found["f1.sw"]) == (0.5, 1.0, 0.0)
    assert found["recall.african"] == 0.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"neighbors": -1}, "`neighbors` must be a whole number of at least 0, but is -1"),
        ({"text": ["a"]}, r"must name 2 columns, but names \['a'\]"),
        ({"languages": []}, "needs `languages`"),
    ],
)
def test_wrong_declaration_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        task(**changes)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (rows(["a", None], ["x", ""]), r"Each row of corpus\.parquet .* but row 1 holds none"),
        (
            rows(["a", None], [None, "y"]),
            "has no pair of translations in de",
        ),
        (rows(["a"], ["x"], ["fr"]), r"declares \(de\), but holds fr"),
    ],
)
def test_wrong_rows_are_refused(known: Rows, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        task().check_rows(known)
    task().check_rows(rows(["a", "b", None], ["x", None, "z"]))
    with pytest.raises(ValueError, match="must have a column 'sentence', but has lang"):
        task().check_rows(Rows(Dataset.from_dict({"lang": ["de"]}), "corpus.parquet", ""))
