"""Which ways of training go with which pruners, and what is said where they do not.

``docs/composition.md`` is made of it, and tests hold every cell against what happens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import composition_trainer as trainer
import composition_ways as ways
import torch
from composition_world import adamw
from pytorch_lightning.callbacks import (
    EMAWeightAveraging,
    StochasticWeightAveraging,
    WeightAveraging,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Way = Callable[[str, Path], None]

UNITS = ("structured", "structured_magnitude", "structured_l0", "attribution", "combined")
NESTED = ("dynamic_sparsification",)
RANKS = ("low_rank", "low_rank_gradual", "low_rank_late")
LEARNED = ("movement", "frozen_movement", "soft_movement", "platon", "fisher")
FAMILIES = ("magnitude", "wanda", "fixed", *LEARNED, *RANKS, *UNITS, *NESTED)

#: A fixed mask has met its budget before the first step.
PRUNING = tuple(family for family in FAMILIES if family != "fixed")
BY_GRADIENT = tuple(
    family
    for family in FAMILIES
    if family not in ("magnitude", "wanda", "fixed", "structured_magnitude")
)
#: Of those that go the same way through a model, the ones that the fast tier leaves out.
ALIKE = ("frozen_movement", "soft_movement", "fisher", "low_rank_gradual", "structured_magnitude")


@dataclass(frozen=True)
class Row:
    """A way of training, and the families that it is refused for, by a part of what is said.

    ``slow`` says that only one family is tried in the fast tier.
    """

    name: str
    way: Way
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    slow: bool = False

    def refusal(self, family: str) -> str | None:
        """Return what a family is told; None if the way works."""
        return next((said for said, some in self.refused.items() if family in some), None)


FROZEN = {
    "is frozen and has none: train it, or choose a pruner that goes by magnitude": BY_GRADIENT
}
LOW = {"keep the model in float32 and train with autocast": BY_GRADIENT}
LOW_AFTER = LOW | {"cast it before pruner.prepare(model), or train with autocast": ("wanda",)}
COMPUTED = {
    "is computed from others, as by torch.nn.utils.parametrize or weight_norm: remove that first": (
        FAMILIES
    )
}
AVERAGED = {"AveragedModel once `pruning.finished` is true": FAMILIES}
PARTS = {"which trains parts of layers: disable it": NESTED}

ROWS = (
    Row("`copy.deepcopy` of model, pruner and optimizer, midway", ways.deep_copy),
    Row("`pickle` of model, pruner and optimizer, midway", ways.pickled),
    Row("evaluation with `torch.no_grad`, midway", ways.evaluated),
    Row("gradient accumulation", ways.accumulated),
    Row("gradient clipping", ways.clipped),
    Row("accumulation and clipping by the Trainer", trainer.accumulated_and_clipped),
    Row(
        "AdamW with `fused=True`",
        lambda family, _: ways.with_optimizer(family, lambda model: adamw(model, fused=True)),
    ),
    Row(
        "AdamW with `foreach=True`",
        lambda family, _: ways.with_optimizer(family, lambda model: adamw(model, foreach=True)),
    ),
    Row(
        "a parameter group for each parameter",
        lambda family, _: ways.with_optimizer(family, ways.one_group_a_parameter),
    ),
    Row(
        "optimizer made before `prepare`",
        ways.optimizer_first,
        {"make it after pruner.prepare(model)": RANKS},
    ),
    Row(
        "gradient checkpointing",
        lambda family, _: ways.checkpointed(family, reentrant=False),
        PARTS,
    ),
    Row(
        "gradient checkpointing, `use_reentrant=True`",
        lambda family, _: ways.checkpointed(family, reentrant=True),
        PARTS | {"enable it with {'use_reentrant': False}": ("attribution",)},
    ),
    Row(
        '`encoder.compile(backend="eager")` after `prepare`',
        lambda family, _: ways.compiled(family, backend="eager"),
        slow=True,
    ),
    Row(
        "`torch.compile(encoder)` before `prepare`",
        ways.compiled_before,
        {"compiled in place, by encoder.compile()": ("fixed", *RANKS, *UNITS, *NESTED)},
        slow=True,
    ),
    Row(
        "a layer frozen before `prepare`",
        lambda family, _: ways.frozen(family, when="before"),
        FROZEN,
    ),
    Row(
        "a layer frozen after `prepare`",
        lambda family, _: ways.frozen(family, when="after"),
        FROZEN,
    ),
    Row(
        "a weight tied within the encoder",
        ways.tied,
        {"untie it, or choose a pruner of single weights": (*UNITS, *NESTED)},
    ),
    Row(
        "`to(torch.bfloat16)` before `prepare`",
        lambda family, _: ways.cast(family, dtype=torch.bfloat16, when="before"),
        LOW,
    ),
    Row(
        "`to(torch.bfloat16)` after `prepare`",
        lambda family, _: ways.cast(family, dtype=torch.bfloat16),
        LOW_AFTER,
    ),
    Row(
        "`half()` after `prepare`",
        lambda family, _: ways.cast(family, dtype=torch.float16),
        LOW_AFTER,
    ),
    Row(
        "`weight_norm` (parametrize) of a layer before `prepare`",
        lambda family, _: ways.parametrized(family, when="before"),
        COMPUTED,
    ),
    Row(
        "`weight_norm` (parametrize) of a layer after `prepare`",
        lambda family, _: ways.parametrized(family, when="after"),
        COMPUTED,
    ),
    Row(
        "a layer wrapped as PEFT does it",
        ways.wrapped,
        {
            "unwrap it (of PEFT: merge_and_unload), or choose a pruner of single weights": (
                *UNITS,
                *NESTED,
            ),
            "A fixed mask must be of an encoder of the same shapes": ("fixed",),
        },
    ),
    Row("`AveragedModel` made once pruning is done", ways.averaged),
    Row(
        "`AveragedModel` made before that",
        lambda family, _: ways.averaged(family, _, since=0),
        {"make it once the schedule has ended": PRUNING},
    ),
    Row(
        "`WeightAveraging`",
        lambda family, folder: trainer.averaged(family, folder, WeightAveraging()),
        AVERAGED,
    ),
    Row(
        "`EMAWeightAveraging`",
        lambda family, folder: trainer.averaged(family, folder, EMAWeightAveraging()),
        AVERAGED,
    ),
    Row(
        "`StochasticWeightAveraging`",
        lambda family, folder: trainer.averaged(family, folder, StochasticWeightAveraging(0.01)),
        AVERAGED,
    ),
    Row("`Tuner.lr_find`, then `fit`", trainer.learning_rate_tuned),
    Row("`LearningRateFinder`", trainer.learning_rate_found, slow=True),
    Row("`Tuner.scale_batch_size`, then `fit`", trainer.batch_size_tuned, slow=True),
    Row("`BatchSizeFinder`", trainer.batch_size_found, slow=True),
    Row(
        "`EarlyStopping` once pruning is done",
        lambda family, folder: trainer.stopped(family, folder, patience=4),
    ),
    Row(
        "`EarlyStopping` before that",
        lambda family, folder: trainer.stopped(family, folder, patience=1),
        {
            "call `prune(1.0)` on the pruner to go to the budget at once": PRUNING,
        },
    ),
    Row("`torch.export` of the finalized encoder", ways.exported, slow=True),
    Row("`torch.jit.trace` of the finalized encoder", ways.traced, slow=True),
    Row("`torch.save` of the finalized encoder as a whole", ways.saved_whole),
)


def markdown() -> str:
    """Return the table, with families that fare alike in one column, and what is said below it."""
    columns: dict[tuple[str | None, ...], list[str]] = {}
    for family in FAMILIES:
        columns.setdefault(tuple(row.refusal(family) for row in ROWS), []).append(family)
    said = list(
        dict.fromkeys(one for column in zip(*columns, strict=True) for one in column if one)
    )
    lines = [
        INTRODUCTION,
        "| | " + " | ".join("<br>".join(f"`{one}`" for one in some) for some in columns.values()),
        "|---" * (len(columns) + 1),
    ]
    for number, row in enumerate(ROWS):
        found = (column[number] for column in columns)
        cells = (f"refused ({said.index(one) + 1})" if one else "works" for one in found)
        lines.append(f"| {row.name} | " + " | ".join(cells))
    table = [f"{line} |" if line.startswith("|") else line for line in lines]
    notes = [f"{number}. … {one} …" for number, one in enumerate(said, start=1)]
    return "\n".join([*table, "", "What the refusals say:", "", *notes, ""])


INTRODUCTION = """# What pruning goes together with

Each cell is a test (`tests/test_composition.py`) on an encoder of two layers, half of which is
pruned in six steps. *Works*: the budget is met, pruned weights are zero in what is evaluated and in
what is left, everything is finite, a run that was stopped continues bit for bit (tried where the
way changes optimizer, layers, precision or checkpointing), and where the way
should not change what is learned, it does not. *Refused*: a sentence before the first step (early
stopping: at its end) says what to do. This page is written by `python benchmarks/composition.py`.
"""
