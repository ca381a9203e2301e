"""What a run answered, example by example, on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from multiprune.metrics.terms import MetricTerms
from multiprune.runs.predictions import FILE, Answers, read_predictions, write_predictions

if TYPE_CHECKING:
    from pathlib import Path


def answers(predictions: torch.Tensor, examples: list[int]) -> Answers:
    return Answers(predictions, predictions + 1, torch.tensor(examples))


def test_answers_come_back_in_the_order_of_examples(tmp_path: Path) -> None:
    # Two ranks took turns with batches of two.
    mixed = answers(torch.tensor([10, 11, 14, 12, 13]), [0, 1, 4, 2, 3])
    write_predictions(tmp_path, {"validation": {"rte": mixed}, "test": {}})
    read = read_predictions(tmp_path)
    assert list(read) == ["validation"]
    assert read["validation"]["rte"].predictions.tolist() == [10, 11, 12, 13, 14]
    assert read["validation"]["rte"].labels.tolist() == [11, 12, 13, 14, 15]
    assert read["validation"]["rte"].examples.tolist() == [0, 1, 2, 3, 4]


def test_several_answers_to_an_example_keep_their_order(tmp_path: Path) -> None:
    tags = answers(torch.tensor([5, 3, 4, 9]), [2, 0, 0, 1])
    write_predictions(tmp_path, {"test": {"tags": tags}})
    read = read_predictions(tmp_path)["test"]["tags"]
    assert read.predictions.tolist() == [3, 4, 9, 5]
    assert read.examples.tolist() == [0, 0, 1, 2]


def test_terms_of_scores_survive_beside_answers(tmp_path: Path) -> None:
    terms = MetricTerms(
        torch.tensor([[0.5, 1.0], [0.1, 1.0], [2.0, 3.0]], dtype=torch.double),
        torch.tensor([0, 1, 2]),
        torch.tensor([0, 1, 0]),
        torch.tensor([0, 0, 1]),
    )
    written = answers(torch.tensor([1, 2, 3]), [0, 1, 2])
    write_predictions(tmp_path, {"test": {"a": written, "b": written}}, {"test": {"a": terms}})
    read = read_predictions(tmp_path)["test"]
    assert read["a"].terms is not None
    for name, one in vars(terms).items():
        assert vars(read["a"].terms)[name].tolist() == one.tolist()
    assert read["b"].terms is None
    assert read["a"].labels.tolist() == read["b"].labels.tolist() == [2, 3, 4]


def test_terms_of_earlier_versions_are_those_of_a_quotient(tmp_path: Path) -> None:
    fields = {
        "predictions": torch.tensor([1, 2], dtype=torch.int8),
        "labels": torch.tensor([1, 1], dtype=torch.int8),
        "examples": torch.tensor([0, 4], dtype=torch.int8),
        "numerators": torch.tensor([0.5, 2.0]),
        "denominators": torch.tensor([1.0, 3.0]),
        "languages": torch.tensor([0, 1], dtype=torch.int8),
        "units": torch.tensor([0, 0], dtype=torch.int8),
    }
    save_file({f"test/qa/{name}": one for name, one in fields.items()}, tmp_path / FILE)
    read = read_predictions(tmp_path)["test"]["qa"]
    assert read.is_quotient
    assert read.terms is not None
    found = {name: one.tolist() for name, one in vars(read.terms).items()}
    terms = [[0.5, 1.0], [2.0, 3.0]]
    assert found == {"terms": terms, "places": [0, 1], "languages": [0, 1], "units": [0, 0]}


@pytest.mark.parametrize("largest", [1, 127, 128, 40_000, 2**31, 2**40])
def test_integers_of_any_size_survive(largest: int, tmp_path: Path) -> None:
    labels = torch.tensor([-largest, 0, largest])
    write_predictions(tmp_path, {"test": {"one": answers(labels, [0, 1, 2])}})
    assert read_predictions(tmp_path)["test"]["one"].predictions.tolist() == labels.tolist()


def test_numbers_and_sets_of_labels_survive(tmp_path: Path) -> None:
    numbers = answers(torch.tensor([0.5, -2.25]), [0, 1])
    sets = answers(torch.tensor([[1, 0], [0, 1]]), [0, 1])
    write_predictions(tmp_path, {"test": {"numbers": numbers, "sets": sets}})
    read = read_predictions(tmp_path)["test"]
    assert read["numbers"].predictions.tolist() == [0.5, -2.25]
    assert read["sets"].labels.tolist() == [[2, 1], [1, 2]]


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    write_predictions(tmp_path, {"test": {"one": answers(torch.tensor([1]), [0])}})
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f"{FILE} is not a complete safetensors file"):
        read_predictions(tmp_path)
    (tmp_path / FILE).write_bytes(whole)
    save_file(
        {key: one for key, one in load_file(tmp_path / FILE).items() if "labels" not in key},
        tmp_path / FILE,
    )
    with pytest.raises(ValueError, match=r"must hold all of test/one, but: .*labels"):
        read_predictions(tmp_path)
