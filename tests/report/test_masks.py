"""Overlap of masks: counts by hand, chance by drawing, and what is read from runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from report_world import LAYERS, write_kept, write_runs

from multiprune.report import shared_masks
from multiprune.report.page.format import records
from multiprune.report.questions import masks as question
from multiprune.report.questions.masks import MULTITASK, overlaps
from multiprune.report.shared_masks import count_shared, expected_jaccard, pooled
from multiprune.report.study import Study
from multiprune.runs.frame import read_run, read_runs
from multiprune.runs.masks import FILE, Mask, read_masks

if TYPE_CHECKING:
    from pathlib import Path

#: The first layer's query, and what is behind it in the order of a matrix.
SHAPE = (6, 10)


def mask(*kept: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    bits = np.zeros(shape, bool)
    bits.reshape(-1)[list(kept)] = True
    return bits


def drawn(generator: np.random.Generator, size: int, count: int) -> np.ndarray:
    return mask(*generator.permutation(size)[:count], shape=(size,))


def test_overlap_is_counted_by_hand() -> None:
    # A bit beyond the last whole byte is one, and what fills that byte up is none.
    first, second, third = mask(0, 1, 2, 59), mask(1, 2, 3, 4, 59), mask()
    counts = count_shared([Mask.of(first), Mask.of(second), Mask.of(third)])
    assert counts.both.tolist() == [[4, 3, 0], [3, 5, 0], [0, 0, 0]]
    jaccard = counts.jaccard()
    assert jaccard[0, 1] == pytest.approx(3 / 6)
    assert jaccard[0, 2] == 0
    assert np.isnan(jaccard[2, 2])
    assert counts.density.tolist() == [4 / 60, 5 / 60, 0]
    assert counts.chance_jaccard()[0, 1] == pytest.approx(expected_jaccard(4 / 60, 5 / 60))


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    drawings = [Mask.of(generator.random((7, 11)) < 0.4) for _ in range(3)]
    whole = count_shared(drawings)
    monkeypatch.setattr(shared_masks, "CHUNK", 16)
    np.testing.assert_array_equal(count_shared(drawings).both, whole.both)


@pytest.mark.parametrize(("size", "first", "second"), [(400, 40, 40), (300, 150, 30), (200, 1, 50)])
def test_chance_is_the_mean_over_random_masks(size: int, first: int, second: int) -> None:
    generator = np.random.default_rng(1)
    found = [
        count_shared([Mask.of(drawn(generator, size, one)) for one in (first, second)]).jaccard()[
            0, 1
        ]
        for _ in range(3000)
    ]
    error = float(np.std(found)) / len(found) ** 0.5
    # What the formula leaves out is of the order of 1 / size.
    expected = expected_jaccard(first / size, second / size)
    assert np.mean(found) == pytest.approx(expected, abs=3 * error + 1 / size)


def test_chance_at_the_ends() -> None:
    assert expected_jaccard(1, 1) == 1
    assert expected_jaccard(1, 0.3) == pytest.approx(0.3)
    for wrong in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="must be in"):
            expected_jaccard(wrong, 0.5)


def test_pooled_counts_are_those_of_all_weights() -> None:
    generator = np.random.default_rng(2)
    layers = [generator.random((2, 50)) < density for density in (0.1, 0.7)]
    by_path = {str(i): count_shared([Mask.of(one) for one in two]) for i, two in enumerate(layers)}
    together = np.concatenate(layers, axis=1)
    expected = (together[0] & together[1]).sum() / (together[0] | together[1]).sum()
    assert pooled(by_path).jaccard()[0, 1] == pytest.approx(expected)


def test_masks_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        count_shared([Mask.of(mask()), Mask.of(mask(shape=(10, 6)))])


def study(folder: Path, *, reads_masks: bool = True) -> Study:
    return Study.from_runs(read_runs(folder), reads_masks=reads_masks)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs of 100,000 parameters with models, in which tasks and seeds keep known weights."""
    folder = write_runs(tmp_path)
    kept = {"easy": range(10), "hard": range(5, 15), "easy-hard": range(15)}
    for name, positions in kept.items():
        for seed in (0, 1):
            # Seeds of a task differ in one weight of each matrix.
            one = mask(*positions, 40 + seed)
            write_kept(folder / f"{name}-100000-{seed}", dict.fromkeys(LAYERS, one))
    return folder


def test_overlap_between_tasks_and_seeds(runs: Path) -> None:
    (overlap,), _ = overlaps(study(runs))
    assert overlap.labels == ("easy", "hard", MULTITASK)

    def jaccard(first: str, second: str, *, same_seed: bool) -> float:
        shared = overlap.shared(first, second, same_seed=same_seed)
        assert shared is not None
        assert shared.pairs == (1 if first == second else 2)
        return shared.jaccard

    # Ten weights in common, of twelve with those of the seeds.
    assert jaccard("easy", "easy", same_seed=False) == pytest.approx(10 / 12)
    assert overlap.shared("easy", "easy", same_seed=True) is None
    # Five, and six where the seeds are the same.
    assert jaccard("easy", "hard", same_seed=True) == pytest.approx(6 / 16)
    assert jaccard("hard", "easy", same_seed=False) == pytest.approx(5 / 17)
    assert jaccard("easy", MULTITASK, same_seed=True) == pytest.approx(11 / 16)
    chance = expected_jaccard(11 / 60, 11 / 60)
    assert overlap.pairs[1].shared.chance == pytest.approx(chance)
    query, output = ("0", "attention.self.query"), ("1", "output.dense")
    assert overlap.between_tasks[output].jaccard == pytest.approx(6 / 16)
    assert overlap.between_both[query].jaccard == pytest.approx(5 / 17)
    assert overlap.between_seeds[query].jaccard == pytest.approx((10 / 12 + 10 / 12 + 15 / 17) / 3)
    assert overlap.density["0", "attention.self.query"] == pytest.approx((11 + 11 + 16) / 3 / 60)


def test_tables_show_who_shares_most_and_where(runs: Path) -> None:
    section = question.answer(study(runs))
    assert section is not None
    # Ten in common of twelve with 11 of 60 each by chance is more than any other two share.
    chance = expected_jaccard(11 / 60, 11 / 60)
    pairs, layers, _ = (records(table.frame) for table in section.tables)
    assert [pairs[0][key] for key in ("method", "asked", "pairs")] == ["Magnitude", 100_000, 1]
    assert pairs[0]["mask of"] == pairs[0]["and of"]
    assert pairs[0]["times chance"] == pytest.approx(10 / 12 / chance)
    same = next(row for row in pairs if (row["and of"], row["seeds"]) == ("hard", "same seed"))
    assert (same["Jaccard"], same["by chance"]) == pytest.approx((6 / 16, chance))
    assert len(layers) == len(LAYERS)
    assert layers[0]["layer"] == "0"
    assert layers[0]["between tasks"] == pytest.approx(6 / 16)
    assert layers[0]["between tasks, by chance"] == pytest.approx(chance)
    assert layers[0]["between tasks and seeds"] == pytest.approx(5 / 17)
    assert layers[0]["between seeds"] == pytest.approx((10 / 12 + 10 / 12 + 15 / 17) / 3)
    assert section.answer == (
        f"easy and hard share most: {6 / 16 / chance:.1f} times chance (same seed, Magnitude at "
        "100,000 parameters)."
    )
    between_labels, by_layer = section.figures
    assert "easy and hard, same seed: 0.38; easy and hard, other seed: 0.29" in between_labels.alt
    assert f"most is {6 / 16 / chance:.1f} in layer 0" in by_layer.alt


def test_masks_are_not_read_unless_they_are_asked_for(runs: Path) -> None:
    assert question.answer(study(runs, reads_masks=False)) is None


def test_runs_without_masks_are_listed(runs: Path) -> None:
    _, skipped = overlaps(study(runs))
    assert len(skipped) == 27 - 6
    reasons = {one.path.name: one.reason for one in skipped}
    assert reasons["easy-400000-0"] == "it has no masks.safetensors"


def test_mask_that_nothing_stands_beside_is_listed(tmp_path: Path) -> None:
    folder = write_runs(tmp_path)
    write_kept(folder / "easy-100000-0", dict.fromkeys(LAYERS, mask(1)))
    found, skipped = overlaps(study(folder))
    assert not found
    reasons = {one.path.name: one.reason for one in skipped}
    assert reasons["easy-100000-0"] == "no other mask of Magnitude at 100,000 parameters"


def test_masks_that_are_not_known_have_a_reason(runs: Path) -> None:
    run = read_run(runs / "easy-100000-0")
    for density, reason in (
        ({}, "nothing was pruned"),
        (
            dict(run.record.density) | {"model.encoder.else.weight": 1.0},
            r"but model\.encoder\.else",
        ),
    ):
        with pytest.raises(ValueError, match=reason):
            read_masks(run.path, density)


@pytest.mark.parametrize("shape", [(6, 10), (12,), (1,), (2, 3, 3)])
def test_masks_of_any_shape_come_back(shape: tuple[int, ...], runs: Path) -> None:
    run = read_run(runs / "easy-100000-0")
    drawn = np.random.default_rng(0).random(shape) < 0.5
    write_kept(run.path, dict.fromkeys(LAYERS, drawn))
    for one in read_masks(run.path, run.record.density).values():
        assert one.shape == shape
        np.testing.assert_array_equal(one.unpacked(), drawn)


def test_damaged_masks_are_listed(runs: Path) -> None:
    (runs / "easy-100000-0" / FILE).write_bytes(b"1234")
    (found,), skipped = overlaps(study(runs))
    reasons = {one.path.name: one.reason for one in skipped}
    assert "masks.safetensors must be whole, but" in reasons["easy-100000-0"]
    shared = found.shared("easy", "hard", same_seed=True)
    assert shared is not None
    assert shared.pairs == 1
