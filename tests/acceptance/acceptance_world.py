"""The pruners of ``conf/pruner``, and a loop of one's own in which they are trained."""

from __future__ import annotations

import copy
import hashlib
import io
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from acceptance_rows import FILES, KINDS, NOTHING
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LinearLR
from transformers import BertConfig, BertForSequenceClassification

from multiprune.budget import Budget, FractionBudget, FullBudget
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.schedule import CubicSchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from multiprune.pruning.pruner import Pruner

HIDDEN, HEADS, NEURONS, LAYERS, WORDS = 32, 4, 24, 2, 40
# Four projections and two matrices of neurons a layer, and the pooler.
DENSE = LAYERS * (4 * HIDDEN**2 + 2 * HIDDEN * NEURONS) + HIDDEN**2
# A neuron owns a row and a column.
NEURON = 2 * HIDDEN

TOTAL_STEPS, STOP_STEP, EVERY_N_STEPS = 10, 7, 3


def bert(seed: int = 0) -> BertForSequenceClassification:
    """Make a classifier of transformers, whose pooler is a linear layer of its encoder."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {
        "vocab_size": WORDS,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": NEURONS,
        "max_position_embeddings": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.2,
        "num_labels": 3,
    }
    model: Any = BertForSequenceClassification(BertConfig(**options))
    model.train()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)  # none that is zero from the start
    return model  # type: ignore[no-any-return]


def batch(number: int, examples: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(4, WORDS, (examples, 6), generator=generator)
    return {"input_ids": ids, "labels": torch.randint(3, (examples,), generator=generator)}


def momentum(parameters: Iterable[Tensor]) -> Optimizer:
    return SGD(parameters, lr=0.02, momentum=0.9)


def adamw(parameters: Iterable[Tensor]) -> Optimizer:
    return AdamW(parameters, lr=0.01, weight_decay=0.1)


def budget_of(name: str, fraction: float) -> Budget:
    return FullBudget() if KINDS[name] == NOTHING else FractionBudget(fraction=fraction)


def pruner_of(name: str, model: nn.Module, fraction: float = 0.5) -> Pruner:
    """Make what a file of ``conf/pruner`` describes; a mask of another run has the same budget."""
    options: dict[str, Any] = {"budget": budget_of(name, fraction)}
    config: Any = OmegaConf.load(FILES[name])
    if config.pop("mask", None) is not None:
        options["mask"] = other_mask(model, fraction)
    pruner: Pruner = instantiate(config, _partial_=True)(**options)
    return pruner


def other_mask(model: nn.Module, fraction: float) -> dict[str, Tensor]:
    """Return which weights of the encoder magnitude pruning keeps, by path from it."""
    copied = copy.deepcopy(model)
    pruner = pruner_of("magnitude", copied, fraction)
    pruner.prepare(copied, encoder_of(copied))
    pruner.prune(1.0)
    return {path.partition(".")[2]: mask for path, mask in pruner.masks().items()}


def encoder_of(model: nn.Module) -> nn.Module:
    encoder: nn.Module = model.base_model  # type: ignore[assignment]
    return encoder


@dataclass(frozen=True)
class Regime:
    """How a loop trains."""

    optimizer: Callable[[Iterable[Tensor]], Optimizer] = adamw
    micro_batches: int = 1
    dtype: torch.dtype | None = None


@dataclass
class Training:
    """A loop of one's own, as README.md has it: prepare, load, attach, train."""

    model: Any
    pruner: Pruner
    optimizer: Optimizer
    rates: LinearLR
    gradual: GradualPruning
    regime: Regime
    losses: list[float] = field(default_factory=list)
    #: What the optimizer's step, with its hooks, is taken in.
    within: Callable[[], AbstractContextManager[Any]] = nullcontext

    @classmethod
    def begun(
        cls,
        name: str,
        *,
        fraction: float = 0.5,
        seed: int = 0,
        regime: Regime = Regime(),
        saved: bytes | None = None,
        made: Callable[[int], nn.Module] = bert,
    ) -> Training:
        """Begin, or go on from what ``state`` gave, as another process would."""
        model = made(seed)
        pruner = pruner_of(name, made(0), fraction)
        pruner.prepare(model, encoder_of(model))
        states = [] if saved is None else torch.load(io.BytesIO(saved))
        if states:
            model.load_state_dict(states[0])
        optimizer = regime.optimizer(model.parameters())
        rates = LinearLR(optimizer, 1.0, 0.2, total_iters=TOTAL_STEPS)
        if states:
            optimizer.load_state_dict(states[1])
            rates.load_state_dict(states[2])
        schedule = CubicSchedule(start=0.0, stop=STOP_STEP / TOTAL_STEPS)
        gradual = GradualPruning(
            pruner, schedule, total_steps=TOTAL_STEPS, every_n_steps=EVERY_N_STEPS
        )
        gradual.attach(optimizer)
        return cls(model, pruner, optimizer, rates, gradual, regime)

    def train(self, until: int = TOTAL_STEPS) -> Training:
        while self.gradual.step < until:
            self.step()
        return self

    def step(self) -> None:
        """Take one step of the optimizer."""
        dtype, scaler = self.regime.dtype, None
        if dtype == torch.float16:
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
        self.optimizer.zero_grad()
        loss = 0.0
        for number in range(self.regime.micro_batches):
            with nullcontext() if dtype is None else torch.autocast("cpu", dtype):
                one = self.loss(100 * self.gradual.step + number) / self.regime.micro_batches
            (one if scaler is None else scaler.scale(one)).backward()  # type: ignore[no-untyped-call]
            loss += one.item()
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        with self.within():
            self.optimizer.step() if scaler is None else scaler.step(self.optimizer)
        self.rates.step()
        self.losses.append(loss)

    def loss(self, number: int) -> Tensor:
        return sum(losses_of(self.model, self.pruner, self.gradual.step, batch(number)))  # type: ignore[return-value]

    def state(self) -> bytes:
        file = io.BytesIO()
        parts = (self.model, self.optimizer, self.rates)
        torch.save([part.state_dict() for part in parts], file)
        return file.getvalue()

    def kept(self) -> int:
        return self.pruner.ledger().kept_in("encoder_linear")

    def logits(self) -> Tensor:
        return logits_of(self.model)


def losses_of(
    model: nn.Module, pruner: Pruner, step: int, inputs: Mapping[str, Tensor]
) -> Iterator[Tensor]:
    """Yield the loss of a model, and of its parts where the pruner trains parts."""
    yield model(**inputs).loss
    if (parts := pruner.trained_parts()) is None:
        return
    for part in parts.parts_of_step(step):
        with parts.part(part):
            yield model(**inputs).loss


@torch.no_grad()
def logits_of(model: nn.Module) -> Tensor:
    """Return what a model answers in evaluation mode to texts that none has trained on."""
    training = model.training
    logits: Tensor = model.eval()(input_ids=batch(-1)["input_ids"]).logits
    model.train(training)
    return logits


def digest(masks: Mapping[str, Tensor]) -> str:
    """Return a hash of masks and their names."""
    found = hashlib.sha256()
    for path, mask in sorted(masks.items()):
        found.update(path.encode() + mask.numpy().tobytes())
    return found.hexdigest()


def bits(model: nn.Module) -> dict[str, bytes]:
    return {key: one.numpy().tobytes() for key, one in model.state_dict().items()}


def nonzero_weights(encoder: nn.Module) -> int:
    """Count the weights of linear layers, of whatever kind these are by now, that are not zero."""
    matrices = [
        one
        for path, one in encoder.named_parameters()
        if one.dim() == 2 and "embeddings." not in path
    ]
    return sum(int(one.count_nonzero()) for one in matrices)
