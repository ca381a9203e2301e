"""A user's own LightningModule, and runs of it that every way of training is held against."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tiny_encoders import HIDDEN, tiny_encoder, tokens
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW, Optimizer
from torch.utils.data import DataLoader
from typing_extensions import override

from multiprune.budget import FractionBudget
from multiprune.pruning.fixed import Fixed
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.schedule import LinearSchedule
from multiprune.training import Pruning

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytorch_lightning.utilities.types import OptimizerLRScheduler

    from multiprune.pruning.pruner import Pruner
    from multiprune.pruning.sizes import Parts

CONF = Path(__file__).parents[1] / "conf" / "pruner"

#: Six steps: ranked after each, the budget met (and layers cut) after the fourth, two heal.
STEPS, STOP_STEP = 6, 4
FRACTION = 0.5


def pruner_of(family: str, **settings: Any) -> Pruner:
    """Make the pruner of a file of ``conf/pruner`` for half of the encoder's linear layers."""
    budget = FractionBudget(fraction=FRACTION)
    if family == "fixed":
        return Fixed(budget=budget, mask=_fixed_masks())
    pruner: Pruner = instantiate(OmegaConf.load(CONF / f"{family}.yaml"), budget=budget, **settings)
    return pruner


def _fixed_masks() -> dict[str, Tensor]:
    """Keep every other weight of each linear layer."""
    return {
        path: (torch.arange(weight.numel()) % 2 == 0).view_as(weight)
        for path, weight in tiny_encoder("bert").named_parameters()
        if weight.dim() == 2 and "embeddings" not in path
    }


class Network(pl.LightningModule):
    """What a user may have: it knows nothing of pruning, but where parts are to be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder: Any = tiny_encoder("bert", dtype=torch.float32)
        torch.manual_seed(0)
        self.head = nn.Linear(HIDDEN, 3)
        self.learning_rate, self.batch_size = 0.01, 3
        self.parts: Parts | None = None

    @override
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        logits: Tensor = self.head(self.encoder(**batch).last_hidden_state.mean(1))
        return logits

    def loss(self, batch: Mapping[str, Tensor], step: int) -> Tensor:
        """Return the loss of a batch, summed over the sizes that are trained."""
        loss = self._loss(batch)
        for part in [] if self.parts is None else self.parts.parts_of_step(step):
            assert self.parts is not None
            with self.parts.part(part):
                loss = loss + self._loss(batch)
        return loss

    def _loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        logits = self(batch["input_ids"], batch["attention_mask"]).float()
        return functional.cross_entropy(logits, batch["labels"])

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch, self.global_step)

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self._loss(batch))

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        return adamw(self)

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        """Two batches of three, unless a tuner asks for other sizes."""
        return DataLoader(examples(), batch_size=self.batch_size)

    @override
    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(examples(), batch_size=6)


def batch_of(number: int) -> dict[str, Tensor]:
    """Make three sentences with labels."""
    generator = torch.Generator().manual_seed(number)
    return tokens(number) | {"labels": torch.randint(3, (3,), generator=generator)}


def examples() -> Any:
    """Return six examples."""
    batches = [batch_of(number) for number in range(2)]
    return [{key: batch[key][row] for key in batch} for batch in batches for row in range(3)]


def adamw(model: nn.Module, **options: Any) -> Optimizer:
    """Make the optimizer of all runs but those that are about optimizers."""
    return AdamW(model.parameters(), **{"lr": 0.01, "weight_decay": 0.1, **options})


def nothing(model: Network) -> None:
    """Change nothing."""


@dataclass
class Run:
    """A plain loop, and what it drives."""

    family: str
    model: Network
    pruner: Pruner
    optimizer: Optimizer
    driver: GradualPruning = field(init=False)

    def __post_init__(self) -> None:
        self.driver = GradualPruning(
            self.pruner,
            LinearSchedule(start=0.0, stop=STOP_STEP / STEPS),
            total_steps=STEPS,
            every_n_steps=1,
        )
        self.driver.attach(self.optimizer)

    def train(self, until: int = STEPS, *, micro_batches: int = 1, clip: float = 0.0) -> Run:
        """Take the steps that are left up to one."""
        self.model.train()
        for step in range(self.driver.step, until):
            self.optimizer.zero_grad()
            for number in range(micro_batches):
                loss = self.model.loss(batch_of(10 * step + number), step) / micro_batches
                loss.backward()  # type: ignore[no-untyped-call]
            if clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), clip)
            self.optimizer.step()
        return self

    def saved(self) -> io.BytesIO:
        """Save what is needed to resume."""
        file = io.BytesIO()
        torch.save([self.model.state_dict(), self.optimizer.state_dict()], file)
        file.seek(0)
        return file

    def resumed(self, file: io.BytesIO) -> Run:
        """Load what another run has saved."""
        states = torch.load(file)
        self.model.load_state_dict(states[0])
        self.optimizer.load_state_dict(states[1])
        return self


def started(
    family: str,
    *,
    before: Callable[[Network], object] = nothing,
    after: Callable[[Network], object] = nothing,
    optimizer: Callable[[Network], Optimizer] = adamw,
    **settings: Any,
) -> Run:
    """Begin a run; ``before`` and ``after`` change the model around ``prepare``."""
    model, pruner = Network(), pruner_of(family, **settings)
    before(model)
    pruner.prepare(model, model.encoder)
    model.parts = pruner.trained_parts()
    after(model)
    return Run(family, model, pruner, optimizer(model))


@dataclass
class Fit:
    """The same in a Trainer."""

    family: str
    folder: Path
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model, self.pruner = Network(), pruner_of(self.family)
        self.model.parts = self.pruner.trained_parts()
        schedule = LinearSchedule(start=0.0, stop=STOP_STEP / STEPS)
        self.pruning = Pruning(self.pruner, schedule, every_n_steps=1, encoder="encoder")

    def trainer(self, *callbacks: pl.Callback, first: bool = True) -> pl.Trainer:
        """Make a Trainer, with the callback before those of the user or after them."""
        settings: dict[str, Any] = {"max_epochs": 3, "num_sanity_val_steps": 0}
        return pl.Trainer(
            accelerator="cpu",
            logger=False,
            callbacks=[self.pruning, *callbacks] if first else [*callbacks, self.pruning],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(self.folder),
            **settings | self.options,
        )

    def trained(self, *callbacks: pl.Callback, **options: Any) -> Fit:
        """Fit the model."""
        self.trainer(*callbacks, **options).fit(self.model)
        return self
