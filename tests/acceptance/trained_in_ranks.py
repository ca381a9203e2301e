"""Trains every pruner by the callback, in as many processes as were started; notes the masks.

Two processes have half of every batch each. One has both halves one after the other, as gradients
are added up then as between processes: the same to the last bit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import pytorch_lightning as pl
import torch
from acceptance_rows import (
    FILES,
)
from acceptance_world import (
    EVERY_N_STEPS,
    STOP_STEP,
    TOTAL_STEPS,
    batch,
    bert,
    digest,
    losses_of,
    pruner_of,
)
from torch.utils.data import DataLoader
from typing_extensions import override

from multiprune.pruning.schedule import CubicSchedule
from multiprune.training import Pruning

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLES = 8


class Module(pl.LightningModule):
    """Somebody's module, which knows no more of pruning than that some pruners train parts."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model = bert()
        self.pruner = pruner_of(name, bert())
        self.seen: list[dict[str, Any]] = []

    @override
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        losses = list(losses_of(self.model, self.pruner, self.global_step, batch))
        return torch.stack(losses).sum()

    @override
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches:
            return
        ledger = self.pruner.ledger()
        owned = sum(one.numel() for one in self.model.parameters())
        kept = ledger.kept_in("encoder_linear")
        self.seen.append({"masks": digest(self.pruner.masks()), "kept": kept, "owned": owned})

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.1)


def trained(name: str, rank: int, ranks: int) -> list[dict[str, Any]]:
    """Train on the halves of batches that a rank has; return what is kept after each step."""
    module = Module(name)
    schedule = CubicSchedule(start=0.0, stop=STOP_STEP / TOTAL_STEPS)
    pruning = Pruning(module.pruner, schedule, every_n_steps=EVERY_N_STEPS, encoder="model.bert")
    halves = [
        {key: one[half::2] for key, one in batch(number, EXAMPLES).items()}
        for number in range(TOTAL_STEPS)
        for half in range(rank, 2, ranks)
    ]
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=ranks,
        strategy="auto" if ranks == 1 else "ddp",
        accumulate_grad_batches=2 // ranks,
        callbacks=[pruning],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, DataLoader(halves, batch_size=None))  # type: ignore[arg-type]
    return module.seen


if __name__ == "__main__":
    import os

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    found = {name: trained(name, rank, ranks) for name in FILES}
    Path(sys.argv[1], f"rank{rank}.json").write_text(json.dumps(found))
