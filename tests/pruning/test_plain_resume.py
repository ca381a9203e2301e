"""A loop of one's own that goes on from a state that was saved after a cut."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from structured_world import Network, adamw, assert_same, driver_of, momentum, one_step, snapshot

from multiprune.budget import FractionBudget
from multiprune.models.modeling_multiprune import DroppedLayer
from multiprune.pruning.removal import LAYERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor
    from torch.optim import Optimizer

    from multiprune.pruning.pruner import Pruner

_FOLDER = Path(__file__).parents[2] / "conf" / "pruner"
either_order = pytest.mark.parametrize(
    "order", [("model", "optimizer"), ("optimizer", "model")], ids="-".join
)
CUTTING = [
    *("combined", "low_rank", "low_rank_gradual", "low_rank_late"),
    *("structured_magnitude", "structured_l0"),
]


class Loop:
    """A model, its pruner, its optimizer and its schedule, all made before anything is loaded."""

    def __init__(
        self,
        name: str,
        optimizer: Callable[[Iterable[Tensor]], Optimizer] = adamw,
        *,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.model = Network(seed=seed)
        self.pruner: Pruner = instantiate(
            OmegaConf.load(_FOLDER / f"{name}.yaml"), budget=FractionBudget(0.5), **options
        )
        self.pruner.prepare(self.model, self.model.encoder)
        self.optimizer = optimizer(self.model.parameters())
        self.driver = driver_of(self.pruner, self.optimizer)

    def train(self, steps: range) -> None:
        for step in steps:
            one_step(self.model, self.optimizer, step)

    def save(self) -> dict[str, Any]:
        return copy.deepcopy(
            {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        )

    def load(self, saved: dict[str, Any], order: Iterable[str]) -> None:
        for part in order:
            getattr(self, part).load_state_dict(copy.deepcopy(saved[part]))


@pytest.mark.parametrize("optimizer", [adamw, momentum])
@either_order
@pytest.mark.parametrize("name", CUTTING)
def test_states_after_a_cut_are_loaded_in_either_order(
    name: str,
    order: tuple[str, str],
    optimizer: Callable[[Iterable[Tensor]], Optimizer],
) -> None:
    straight = Loop(name, optimizer)
    straight.train(range(10))
    assert straight.driver.was_cut
    saved = straight.save()
    resumed = Loop(name, optimizer, seed=1)
    resumed.load(saved, order)
    for loop in (straight, resumed):
        loop.train(range(10, 12))
    assert_same(resumed.model.state_dict(), straight.model.state_dict())


@either_order
def test_an_optimizer_of_layers_that_were_dropped_is_refused(order: tuple[str, str]) -> None:
    straight = Loop("structured_magnitude", granularity=[LAYERS])
    straight.train(range(10))
    assert any(isinstance(one, DroppedLayer) for one in straight.model.modules())
    saved = straight.save()
    resumed = Loop("structured_magnitude", granularity=[LAYERS])
    said = r"has \d+ parameters, and the state that is loaded \d+, .* then make the optimizer\.$"
    with pytest.raises(ValueError, match=said):
        resumed.load(saved, order)


@pytest.mark.parametrize("name", CUTTING)
@either_order
def test_going_back_to_before_the_cut_works_or_is_refused_and_changes_nothing(
    name: str, order: tuple[str, str]
) -> None:
    loop, straight = Loop(name), Loop(name)
    loop.train(range(7))
    saved = loop.save()
    loop.train(range(7, 10))
    if name.startswith("low_rank"):
        loop.load(saved, order)
        loop.train(range(7, 12))
        straight.train(range(12))
        assert_same(loop.model.state_dict(), straight.model.state_dict())
        return
    before = snapshot(loop.model)
    with pytest.raises(ValueError, match=r"cut otherwise, or not yet, .* newly prepared model"):
        loop.load(saved, order)
    assert_same(loop.model.state_dict(), before)


def test_a_state_of_the_same_shapes_and_other_units_is_refused() -> None:
    loop = Loop("structured_magnitude")
    loop.train(range(10))
    saved = loop.save()["model"]
    name = next(key for key in saved if key.endswith("neurons_mask"))
    assert not saved[name].equal(saved[name].flip(0))
    loop.model.load_state_dict(saved)
    saved[name] = saved[name].flip(0)
    with pytest.raises(ValueError, match="cut otherwise, or not yet"):
        loop.model.load_state_dict(saved)
