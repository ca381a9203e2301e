"""How often each resample has each example."""

from __future__ import annotations

import pytest
import torch

from multiprune.metrics import Accuracy
from multiprune.report import resampled
from multiprune.report.resampled import resamples


def test_resamples_have_as_many_examples_and_are_the_same_each_time() -> None:
    (first,), (same,), (other,) = (resamples(50, 20, seed=seed) for seed in (1, 1, 2))
    assert set(first.sum(1).tolist()) == {50}
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_blocks_are_parts_of_the_same_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = resamples(50, 20, seed=1)
    monkeypatch.setattr(resampled, "BLOCK", 350)
    blocks = list(resamples(50, 20, seed=1))
    assert [len(one) for one in blocks] == [7, 7, 6]
    assert torch.equal(torch.cat(blocks), whole)


def test_spread_of_accuracy_is_that_of_a_binomial() -> None:
    right = (torch.arange(400) < 320).double()
    (weights,) = resamples(400, 5000, seed=0)
    found = Accuracy().scores(torch.stack([right, torch.ones(400)], 1), weights)
    assert float(found.mean()) == pytest.approx(0.8, abs=0.002)
    assert float(found.std()) == pytest.approx((0.8 * 0.2 / 400) ** 0.5, rel=0.05)
