"""A tiny encoder with a head to prune, and runs that train it."""

from __future__ import annotations

import copy
import io
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from tiny_encoders import (
    HEAD_SIZE,
    HIDDEN,
    INTERMEDIATE,
    tiny_encoder,
    tokens,
)
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LinearLR

from multiprune.budget import FractionBudget
from multiprune.models.modeling_multiprune import DroppedLayer
from multiprune.pruning.by_task import HighestRank
from multiprune.pruning.dynamic_sparsification import DynamicSparsification
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.layer_state import STATE
from multiprune.pruning.removal import BLOCKS, HEADS, NEURONS
from multiprune.pruning.schedule import CubicSchedule
from multiprune.pruning.structured import Structured
from multiprune.tasks.outputs.heads import AlongHidden

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from transformers import PreTrainedModel

    from multiprune.pruning.importance import Importance
    from multiprune.pruning.pruner import Pruner
    from multiprune.pruning.units import UnitPruner

_FOLDER = Path(__file__).parents[2] / "conf" / "pruner"
ALL_FILES = [
    _FOLDER / "attribution.yaml",
    _FOLDER / "dynamic_sparsification.yaml",
    *sorted(_FOLDER.glob("structured*.yaml")),
]

# Steps are of these in turn.
TASKS = ("first", "second")

TOTAL_STEPS, STOP_STEP, EVERY_N_STEPS = 12, 9, 3

# Two layers: four projections of 32 x 32 and two of 32 x 24, and their biases.
WEIGHTS = 2 * (4 * HIDDEN**2 + 2 * HIDDEN * INTERMEDIATE)
# A head owns 8 rows or columns of four matrices, a neuron one of two.
HEAD, NEURON = 4 * HEAD_SIZE * HIDDEN, 2 * HIDDEN
ASKED = 4505  # 40 % of 11,264, rounded down


class Network(nn.Module):
    def __init__(
        self, name: str = "bert", *, seed: int = 0, only_first_layer: bool = False
    ) -> None:
        super().__init__()
        self.encoder: PreTrainedModel = tiny_encoder(name, dtype=torch.float32, seed=seed)
        torch.manual_seed(seed)
        self.head = nn.Linear(HIDDEN, 3)
        self.only_first_layer = only_first_layer

    def along_hidden(self) -> AlongHidden:
        return AlongHidden([self.head])

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        if self.only_first_layer:
            encoder: Any = self.encoder
            states = encoder.encoder.layer[0](encoder.embeddings(batch["input_ids"]))
        else:
            states = self.encoder(**batch).last_hidden_state
        logits: Tensor = self.head(states.mean(1))
        return logits


def loss_of(model: nn.Module, number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    labels = torch.randint(3, (3,), generator=generator)
    return nn.functional.cross_entropy(model(tokens(number)), labels)


def one_step(
    model: nn.Module, optimizer: Optimizer, step: int, *, micro_batches: int = 1, bf16: bool = False
) -> None:
    optimizer.zero_grad()
    for number in range(micro_batches):
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = loss_of(model, 100 * step + number) / micro_batches
        loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def momentum(parameters: Iterable[Tensor]) -> Optimizer:
    return SGD(parameters, lr=0.02, momentum=0.9)


def adamw(parameters: Iterable[Tensor]) -> Optimizer:
    return AdamW(parameters, lr=0.01, weight_decay=0.1)


@dataclass(frozen=True)
class Case:
    """A file of ``conf/pruner``, and what may go."""

    file: Path
    granularity: tuple[str, ...] = (HEADS, NEURONS)
    fraction: float = 0.4
    by_task: bool = False

    @property
    def method(self) -> type[UnitPruner]:
        method: type[UnitPruner] = get_class(str(OmegaConf.load(self.file)._target_))
        return method

    @property
    def keeps_weights(self) -> bool:
        """Whether larger parts need what the smallest does not, until the pruning is permanent.

        Such weights are not zero, what is gone may come back while the schedule goes on, and no
        layer is cut; in evaluation mode the encoder is its smallest part all the same.
        """
        return self.method is DynamicSparsification

    def pruner(self) -> UnitPruner:
        budget = FractionBudget(fraction=self.fraction)
        options = {"by_task": HighestRank(tasks=TASKS)} if self.by_task else {}
        pruner: UnitPruner = instantiate(
            OmegaConf.load(self.file), budget=budget, granularity=self.granularity, **options
        )
        return pruner

    def prepared(self, name: str = "bert") -> tuple[Network, UnitPruner]:
        model, pruner = Network(name), self.pruner()
        pruner.prepare(model, model.encoder)
        return model, pruner

    def trained(self, steps: int) -> tuple[Network, UnitPruner, Optimizer]:
        model, pruner = self.prepared()
        optimizer = adamw(model.parameters())
        driver_of(pruner, optimizer)
        for step in range(steps):
            one_step(model, optimizer, step)
        return model, pruner, optimizer

    def __str__(self) -> str:
        return f"{self.file.stem}-{'+'.join(self.granularity)}" + "-by_task" * self.by_task


def files() -> list[Path]:
    assert len(ALL_FILES) >= 3, "conf/pruner holds no structured pruners"
    return ALL_FILES


def driver_of(pruner: Pruner, optimizer: Optimizer) -> GradualPruning:
    schedule = CubicSchedule(start=0.0, stop=STOP_STEP / TOTAL_STEPS)
    driver = GradualPruning(pruner, schedule, total_steps=TOTAL_STEPS, every_n_steps=EVERY_N_STEPS)
    optimizer.register_step_pre_hook(lambda *_: driver.tasks.add(TASKS[driver.step % 2]))
    driver.attach(optimizer)
    return driver


def with_importance(
    importance: Importance, granularity: Sequence[str] = (HEADS, NEURONS), **options: Any
) -> Structured:
    budget = FractionBudget(**({"fraction": 0.4} | options))
    return Structured(budget=budget, importance=importance, granularity=granularity)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_same(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(actual[key], expected[key])] == []


def masked(pruner: UnitPruner) -> list[Tensor]:
    """Return every value that is pruned and not cut, found by the masks' names alone."""
    encoder: Any = pruner._encoder
    found = []
    for number, layer in enumerate(encoder.encoder.layer):
        if isinstance(layer, DroppedLayer):
            continue
        state = getattr(encoder, STATE)[number]
        heads = state.heads_mask.repeat_interleave(HEAD_SIZE)
        query_key = state.query_key_mask.reshape(-1) & heads
        value = state.value_mask.reshape(-1) & heads
        own, neurons, first = layer.attention.self, state.neurons_mask, layer.intermediate.dense
        if own.query.weight.shape[0] < HIDDEN or len(first.bias) < INTERMEDIATE:
            continue
        for linear, mask in ((own.query, query_key), (own.key, query_key), (own.value, value)):
            found += [linear.weight[~mask], linear.bias[~mask]]
        found += [first.weight[~neurons], first.bias[~neurons]]
        found.append(layer.attention.output.dense.weight[:, ~value])
        found.append(layer.output.dense.weight[:, ~neurons])
        if not heads.any():
            found += [layer.attention.output.dense.bias, layer.output.dense.bias]
    return found + masked_hidden(pruner)


def masked_hidden(pruner: UnitPruner) -> list[Tensor]:
    """Return every value of hidden dimensions that are pruned and not cut, by shapes alone.

    Heads have as many dimensions together, along which their layers are left out.
    """
    encoder: Any = pruner._encoder
    if "hidden" not in pruner.granularity or pruner.is_cut:
        return []
    gone = ~pruner.masks()["hidden"]
    found = []
    for path, one in encoder.named_parameters():
        is_of_heads = ".self." in path
        if len(one) == HIDDEN and not is_of_heads:
            found.append(one[gone])
        if one.dim() == 2 and one.shape[1] == HIDDEN and "attention.output" not in path:
            found.append(one[:, gone])
    return found


def linear_weights(encoder: nn.Module) -> int:
    """Count the weights of all linear layers as they stand."""
    return sum(one.weight.numel() for one in encoder.modules() if isinstance(one, nn.Linear))


def nonzero_weights(encoder: nn.Module) -> int:
    linear = [one for one in encoder.modules() if isinstance(one, nn.Linear)]
    return sum(int(one.weight.count_nonzero()) for one in linear)


def permanent(case: Case, model: Network, pruner: UnitPruner) -> tuple[Network, UnitPruner]:
    """Return what has only what it keeps: a copy, if the weights of the rest are there still."""
    if not case.keeps_weights:
        return model, pruner
    copied = copy.deepcopy((model, pruner))
    copied[1].finalize()
    return copied


def assert_meets_budget(case: Case, model: Network, pruner: UnitPruner) -> None:
    spare = spare_of(pruner)
    model, pruner = permanent(case, model, pruner)
    kept = pruner.ledger().kept_in("encoder_linear")
    assert nonzero_weights(model.encoder) <= kept <= ASKED
    assert ASKED - kept < spare


def spare_of(pruner: UnitPruner) -> int:
    """Return what must not be missing: a neuron, or more where no neuron is left to go alone."""
    has_neurons = any(int(state.kept().neurons.sum()) > 1 for state in pruner.states)
    is_filled = NEURONS in pruner.granularity and (has_neurons or BLOCKS not in pruner.granularity)
    return NEURON if is_filled else pruner.spare + 1


@dataclass
class Run:
    """A training run built from nothing, as after a restart; the optimizer is made last."""

    model: Network
    pruner: UnitPruner
    optimizer: Optimizer
    scheduler: LinearLR
    driver: GradualPruning

    @classmethod
    def fresh(cls, case: Case, seed: int, saved: bytes | None = None) -> Run:
        model, pruner = Network(seed=seed), case.pruner()
        pruner.prepare(model, model.encoder)
        states = None if saved is None else torch.load(io.BytesIO(saved))
        if states is not None:
            model.load_state_dict(states[0])
        optimizer = adamw(model.parameters())
        scheduler = LinearLR(optimizer, start_factor=0.25, total_iters=TOTAL_STEPS)
        run = cls(model, pruner, optimizer, scheduler, driver_of(pruner, optimizer))
        if states is not None:
            for part, state in zip(run.parts()[1:], states[1:], strict=True):
                part.load_state_dict(state)
        return run

    def train(self, steps: range) -> None:
        for step in steps:
            one_step(self.model, self.optimizer, step)
            self.scheduler.step()

    def save(self) -> bytes:
        file = io.BytesIO()
        torch.save([part.state_dict() for part in self.parts()], file)
        return file.getvalue()

    def parts(self) -> list[Any]:
        return [self.model, self.optimizer, self.scheduler]

    def bits(self) -> dict[str, bytes]:
        return {key: value.numpy().tobytes() for key, value in self.model.state_dict().items()}
