"""What every pruning method keeps when it prunes an encoder-decoder: both stacks, nothing else."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from structured_world import adamw
from test_contract import FILES
from tiers import slow
from tiny_encoders import HIDDEN, tiny_encoder, tokens
from torch import Tensor, nn

from multiprune.budget import FractionBudget, FullBudget
from multiprune.models.text_to_text import LabelWords
from multiprune.pruning.dynamic_sparsification import DynamicSparsification
from multiprune.pruning.fixed import Fixed
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.none import NoPruning
from multiprune.pruning.schedule import CubicSchedule
from multiprune.pruning.structured_l0 import StructuredL0
from multiprune.pruning.units import UnitPruner

if TYPE_CHECKING:
    from pathlib import Path

    from torch.optim import Optimizer

    from multiprune.pruning.pruner import Pruner

TOTAL_STEPS, STOP_STEP, EVERY_N_STEPS = 8, 6, 2
FRACTION = 0.6


def method_of(file: Path) -> type[Pruner]:
    method: type[Pruner] = get_class(str(OmegaConf.load(file)._target_))
    return method


#: A fixed mask is that of another run, and of an encoder or not is the same to it; dynamic
#: sparsification refuses an encoder-decoder.
CASES = [file for file in FILES if not issubclass(method_of(file), (Fixed, DynamicSparsification))]
every_method = pytest.mark.parametrize("file", CASES, ids=[file.stem for file in CASES])
every_version = pytest.mark.parametrize("name", ["t5_gated", *slow("t5")])


def largest_group(method: type[Pruner]) -> int:
    """Return the most parameters that go together: a head of four matrices, a rank, a weight."""
    return 4 * 8 * HIDDEN if issubclass(method, UnitPruner) else 2 * HIDDEN


class Network(nn.Module):
    def __init__(self, name: str, seed: int = 0) -> None:
        super().__init__()
        self.encoder: Any = tiny_encoder(name, dtype=torch.float32, seed=seed)
        self.words = LabelWords([[5, 6, 1], [7, 1], [8, 9, 10, 1]], start=0)

    def forward(self, number: int) -> Tensor:
        logits: Tensor = self.words(self.encoder, tokens(number))
        return logits


class Run:
    def __init__(self, file: Path, name: str, seed: int = 0) -> None:
        dense = issubclass(method_of(file), NoPruning)
        options: dict[str, Any] = {}
        if issubclass(method_of(file), StructuredL0):
            options["granularity"] = ["heads", "neurons"]
        budget = FullBudget() if dense else FractionBudget(fraction=FRACTION)
        self.model = Network(name, seed)
        self.pruner: Pruner = instantiate(OmegaConf.load(file), budget=budget, **options)
        self.pruner.prepare(self.model, self.model.encoder)
        self.optimizer: Optimizer = adamw(self.model.parameters())
        schedule = CubicSchedule(start=0.0, stop=STOP_STEP / TOTAL_STEPS)
        self.driver = GradualPruning(
            self.pruner, schedule, total_steps=TOTAL_STEPS, every_n_steps=EVERY_N_STEPS
        )
        self.driver.attach(self.optimizer)

    def train(self, steps: range) -> None:
        for step in steps:
            self.optimizer.zero_grad()
            labels = torch.tensor([0, 1, 2])
            loss = nn.functional.cross_entropy(self.model(step), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()


@every_version
@every_method
def test_budget_is_met_and_embeddings_stay(file: Path, name: str) -> None:
    run = Run(file, name)
    dense = run.pruner.ledger()
    logits = run.model(0)
    torch.testing.assert_close(logits, Network(name)(0), rtol=1e-4, atol=1e-4)
    run.train(range(TOTAL_STEPS))
    logits = run.model.eval()(0)
    run.pruner.finalize()
    torch.testing.assert_close(run.model(0), logits, rtol=1e-4, atol=1e-4)
    ledger = run.pruner.ledger()
    asked = dense.dense_in("encoder_linear")
    if not issubclass(method_of(file), NoPruning):
        asked = int(FRACTION * asked)
    kept = ledger.kept_in("encoder_linear")
    assert asked - largest_group(method_of(file)) < kept <= asked
    stacks = [*run.model.encoder.encoder.modules(), *run.model.encoder.decoder.modules()]
    found = [one.weight for one in stacks if isinstance(one, nn.Linear)]
    found += [one.down.weight for one in stacks if hasattr(one, "down")]
    assert sum(int(one.count_nonzero()) for one in {id(one): one for one in found}.values()) == kept
    assert ledger.kept["embeddings"] == dense.dense["embeddings"]
    t5 = run.model.encoder
    assert t5.lm_head.weight is t5.shared.weight is t5.decoder.embed_tokens.weight
    assert t5.shared.weight.count_nonzero() == t5.shared.weight.numel()


@pytest.mark.parametrize("saved_after", [7, *slow(3)])
@every_method
def test_resumed_run_equals_straight_run_bit_for_bit(file: Path, saved_after: int) -> None:
    straight = Run(file, "t5_gated")
    straight.train(range(saved_after))
    saved = copy.deepcopy((straight.model.state_dict(), straight.optimizer.state_dict()))
    straight.train(range(saved_after, TOTAL_STEPS))
    resumed = Run(file, "t5_gated", seed=1)
    resumed.model.load_state_dict(saved[0])
    resumed.optimizer.load_state_dict(saved[1])
    resumed.train(range(saved_after, TOTAL_STEPS))
    expected = straight.model.state_dict()
    found = resumed.model.state_dict()
    assert found.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []
    assert resumed.pruner.ledger() == straight.pruner.ledger()


def test_untied_matrix_of_scores_is_not_pruned() -> None:
    file = next(file for file in CASES if file.stem == "magnitude")
    model = Network("t5_gated")
    model.encoder.lm_head.weight = nn.Parameter(model.encoder.shared.weight.detach().clone())
    pruner: Pruner = instantiate(OmegaConf.load(file), budget=FractionBudget(fraction=0.1))
    pruner.prepare(model, model.encoder)
    pruner.prune(1.0)
    assert model.encoder.lm_head.weight.count_nonzero() == model.encoder.shared.weight.numel()
    assert not any("lm_head" in path for path in pruner.masks())


def test_dropping_blocks_is_refused() -> None:
    file = next(file for file in CASES if method_of(file) is StructuredL0)
    model = Network("t5")
    pruner: Pruner = instantiate(OmegaConf.load(file), budget=FractionBudget(fraction=0.5))
    with pytest.raises(ValueError, match="leave `blocks` out of `granularity`"):
        pruner.prepare(model, model.encoder)


def test_head_dimensions_may_go() -> None:
    file = next(file for file in CASES if file.stem == "structured_magnitude")
    pruner: Pruner = instantiate(
        OmegaConf.load(file),
        budget=FractionBudget(fraction=0.3),
        granularity=["heads", "head_dimensions", "neurons"],
    )
    model = Network("t5_gated")
    pruner.prepare(model, model.encoder)
    pruner.prune(1.0)
    logits = model(0)
    pruner.finalize()
    torch.testing.assert_close(model(0), logits, rtol=1e-4, atol=1e-4)
    block = model.encoder.encoder.block
    sizes = {one.layer[0].SelfAttention.key_value_proj_dim for one in block}
    assert sizes != {8}
