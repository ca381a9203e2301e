"""The ledger: every parameter of a model counted once, by the part it belongs to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from multiprune.runs.budget_outcome import PARTS as PARTS
from multiprune.runs.budget_outcome import LedgerRow
from multiprune.runs.budget_outcome import parts_of as parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn


@dataclass(frozen=True)
class OwnedParameter:
    """A parameter, its dotted path, the module that owns it and the part that it counts to."""

    path: str
    module: nn.Module
    name: str
    part: str

    @property
    def parameter(self) -> Tensor:
        """The tensor itself, looked up anew, since moving a model may replace it."""
        tensor: Tensor = getattr(self.module, self.name)
        return tensor


def owned_parameters(
    model: nn.Module, encoder: nn.Module | None = None
) -> Iterator[OwnedParameter]:
    """Yield every parameter of ``model`` once; a tied one belongs to its first owner.

    ``encoder`` is the part of ``model`` that counts as the encoder (all of it by default); every
    parameter outside it counts to the heads. The matrix by which an encoder-decoder scores tokens
    counts to the embeddings, tied to them or not.
    """
    encoder = model if encoder is None else encoder
    if not hasattr(encoder, "parameters"):
        raise TypeError(f"`encoder` must be a module, as model.bert, but is {encoder!r}.")
    inside = {id(parameter) for parameter in encoder.parameters()}
    refuse_computed(encoder)
    writing = _output_embeddings(encoder)
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            part = _part(module, parameter) if id(parameter) in inside else "heads"
            part = "embeddings" if module is writing and name == "weight" else part
            yield OwnedParameter(f"{prefix}.{name}".lstrip("."), module, name, part)


def shared_parameters(model: nn.Module) -> set[int]:
    """Return the ids of parameters that several modules own: of tied weights."""
    uses = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    )
    return {parameter for parameter, count in uses.items() if count > 1}


def _output_embeddings(encoder: nn.Module) -> object:
    """Return what gives each token a score, where an encoder-decoder has it untied."""
    is_decoding = getattr(getattr(encoder, "config", None), "is_encoder_decoder", False)
    return encoder.get_output_embeddings() if is_decoding else None  # type: ignore[operator]


def refuse_computed(encoder: nn.Module) -> None:
    """Raise a ValueError if a linear layer computes its weight: nothing of it could be pruned."""
    # Imported late: budgets are checked before torch is there.
    from torch import nn

    for path, module in encoder.named_modules():
        if isinstance(module, nn.Linear):
            check_owned(f"{path}.weight", module, "weight")


def check_owned(path: str, module: nn.Module, name: str) -> None:
    """Raise a ValueError if a module computes a weight from others, whatever these are."""
    if module._parameters.get(name) is None:
        raise ValueError(
            f"A weight must be a parameter of its layer to be pruned, but {path} is computed from "
            "others, as by torch.nn.utils.parametrize or weight_norm: remove that first."
        )


def _part(module: nn.Module, parameter: Tensor) -> str:
    # Imported late: budgets are checked before torch is there.
    from torch import nn

    if isinstance(module, nn.Embedding):
        return "embeddings"
    if isinstance(module, nn.Linear) and parameter.dim() == 2:
        return "encoder_linear"
    return "encoder_other"


@dataclass(frozen=True)
class ParameterLedger:
    """How many parameters each part of a model has, and how many of them are kept.

    ``prunable`` holds, per part, the number of parameters in the scope of the pruner; what is
    outside it stays whatever the budget says.
    """

    dense: Mapping[str, int]
    kept: Mapping[str, int]
    prunable: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        encoder: nn.Module | None = None,
        *,
        masks: Mapping[str, Tensor] | None = None,
    ) -> ParameterLedger:
        """Count ``model``; ``masks`` maps paths of prunable parameters to what is kept of them."""
        masks = masks or {}
        dense, kept, prunable = (dict.fromkeys(PARTS, 0) for _ in range(3))
        for owned in owned_parameters(model, encoder):
            size = owned.parameter.numel()
            mask = masks.get(owned.path)
            dense[owned.part] += size
            kept[owned.part] += size if mask is None else int(mask.count_nonzero())
            prunable[owned.part] += 0 if mask is None else size
        return cls(dense, kept, prunable)

    def dense_in(self, denominator: str) -> int:
        """Return the number of parameters of the dense model that ``denominator`` counts."""
        return sum(self.dense[part] for part in parts_of(denominator))

    def kept_in(self, denominator: str) -> int:
        """Return the number of kept parameters that ``denominator`` counts."""
        return sum(self.kept[part] for part in parts_of(denominator))

    def fixed_in(self, denominator: str) -> int:
        """Return the number of parameters that ``denominator`` counts and nothing may prune."""
        prunable = sum(self.prunable.get(part, 0) for part in parts_of(denominator))
        return self.dense_in(denominator) - prunable

    @property
    def density(self) -> float:
        """What is kept of the parameters in the scope of the pruner, as a fraction of them."""
        prunable = sum(self.prunable.values())
        removed = sum(self.dense.values()) - sum(self.kept.values())
        return 1 - removed / prunable if prunable else 1.0

    def rows(self) -> list[LedgerRow]:
        """Return one row a part, as it is recorded."""
        return [
            LedgerRow(
                part=part,
                dense=self.dense[part],
                kept=self.kept[part],
                in_scope=self.prunable.get(part, 0) > 0,
            )
            for part in PARTS
        ]
