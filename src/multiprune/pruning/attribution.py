"""Attribution of a model's predictions to its units, without training.

A prediction is a log-probability, a unit a dimension of a head, a head, a neuron or a layer. Of a
unit with activation ``h`` and gradient ``g`` of the log-probability, both by token, ``h * g`` is
the change in the log-probability, to first order, that the unit makes by not being zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.models.architectures import NEURONS, QUERY_KEY, VALUE
from multiprune.pruning.importance import Scores
from multiprune.pruning.removal import HEADS
from multiprune.pruning.sites import Sites, linear_outputs, projection_inputs

if TYPE_CHECKING:
    from multiprune.models.structure import Layer

#: How the tokens of an example become one number for each unit.
TokenReduction = Callable[
    [Float[Tensor, "examples tokens units"], Bool[Tensor, "examples tokens"]],
    Float[Tensor, "examples units"],
]


def max_over_tokens(
    values: Float[Tensor, "examples tokens units"], mask: Bool[Tensor, "examples tokens"]
) -> Float[Tensor, "examples units"]:
    """Return the largest value over the tokens of each example; padding plays no part."""
    largest = values.masked_fill(~mask[..., None], -torch.inf).amax(1)
    return largest.masked_fill(~mask.any(1, keepdim=True), 0)


def sum_over_tokens(
    values: Float[Tensor, "examples tokens units"], mask: Bool[Tensor, "examples tokens"]
) -> Float[Tensor, "examples units"]:
    """Return the sum over the tokens of each example; padding plays no part."""
    return values.masked_fill(~mask[..., None], 0).sum(1)


def mean_over_tokens(
    values: Float[Tensor, "examples tokens units"], mask: Bool[Tensor, "examples tokens"]
) -> Float[Tensor, "examples units"]:
    """Return the mean over the tokens of each example; padding plays no part."""
    return sum_over_tokens(values, mask) / mask.sum(1, keepdim=True).clamp(min=1)


@dataclass(frozen=True)
class Pass:
    """One run of the model, and its weight in the sum.

    Attributes:
        place: the number of the only site that is read, and scaled by ``gate``; None to read all
            sites as they are.
    """

    place: int | None = None
    gate: float = 1.0
    weight: float = 1.0


class Attribution:
    """A way to attribute predictions to units: by itself, the sum of ``h * g``.

    Args:
        sites: where units are read off a layer.
    """

    #: Whether a backward pass is needed.
    reads_gradients = True

    def __init__(self, *, sites: Sites = projection_inputs) -> None:
        self.sites = sites

    def passes(self, places: int) -> list[Pass]:  # noqa: ARG002
        """Return the runs of a model with so many sites on each batch."""
        return [Pass()]

    def of_token(
        self,
        activation: Float[Tensor, "examples tokens units"],
        gradient: Float[Tensor, "examples tokens units"],
    ) -> Float[Tensor, "examples tokens units"]:
        """Return what each unit contributes at each token; a head does what its values do."""
        return activation * gradient

    def over_tokens(
        self,
        contributions: Float[Tensor, "examples tokens units"],
        mask: Bool[Tensor, "examples tokens"],
    ) -> Float[Tensor, "examples units"]:
        """Return what a unit contributes to each example."""
        return sum_over_tokens(contributions, mask)

    def of_example(
        self, contributions: Float[Tensor, "examples *units"]
    ) -> Float[Tensor, "examples *units"]:
        """Return what is summed over examples."""
        return contributions

    def in_total(self, sums: Float[Tensor, "*units"]) -> Float[Tensor, "*units"]:
        """Return the importance from the sum over examples."""
        return sums


class ActivationGradient(Attribution):
    """Activation times gradient of the log-probability.

    ``A(h) = sum over examples of max over tokens of h * d log p / d h`` (Yang et al. 2023, "Task-
    specific Compression for Multi-task Language Models using Attribution-based Pruning"; the
    maximum is that of CRISPR, Yang et al. 2024, and what they sum over is the log-probability of
    the whole answer). Units that speak against the answer score below zero, and go first.

    Args:
        tokens: how the tokens of an example become one number.
        absolute: count what speaks against the answer like what speaks for it.
        sites: where; the papers attribute the outputs of the linear layers.
    """

    def __init__(
        self,
        *,
        tokens: TokenReduction = max_over_tokens,
        absolute: bool = False,
        sites: Sites = linear_outputs,
    ) -> None:
        super().__init__(sites=sites)
        self.tokens, self.absolute = tokens, absolute

    @override
    def over_tokens(
        self,
        contributions: Float[Tensor, "examples tokens units"],
        mask: Bool[Tensor, "examples tokens"],
    ) -> Float[Tensor, "examples units"]:
        return self.tokens(contributions.abs() if self.absolute else contributions, mask)


class Taylor(Attribution):
    """The absolute first-order change of the sum over all examples when a unit is closed.

    Michel et al. (2019), section 4.1, without their absolute value of every example: contributions
    of opposite sign cancel between examples.
    """

    @override
    def in_total(self, sums: Float[Tensor, "*units"]) -> Float[Tensor, "*units"]:
        return sums.abs()


class Fisher(Attribution):
    """The Fisher information of gates: the sum over examples of ``(d log p / d z)^2``.

    Kwon et al. (2022), "A Fast Post-Training Pruning Framework for Transformers", section 4.1, by
    example as in the paper (their code squares the gradient of a batch). Half of it estimates by
    how much the log-probability falls when the gate is closed.
    """

    @override
    def of_example(
        self, contributions: Float[Tensor, "examples *units"]
    ) -> Float[Tensor, "examples *units"]:
        return contributions.square()


class IntegratedGradients(Attribution):
    """The integral of ``d log p / d h`` from 0 to the activations of one site at a time.

    Sundararajan et al. (2017), equation 1, within a network (Dhamdhere et al. 2018 compare ways):
    the activations of a site are the inputs, zeros the baseline, and all other sites compute as
    ever. What the units of a site contribute sums up to the log-probability of the model less that
    of the model without them. By the midpoint rule, in ``steps`` runs for every site of every
    layer: of 6 layers with 3 sites each, 18 times ``steps``.
    """

    def __init__(self, *, steps: int = 8, sites: Sites = projection_inputs) -> None:
        super().__init__(sites=sites)
        check_number("steps", steps, at_least=1, whole=True)
        self.steps = steps

    @override
    def passes(self, places: int) -> list[Pass]:
        gates = [(step + 0.5) / self.steps for step in range(self.steps)]
        return [Pass(place, gate, 1 / self.steps) for place in range(places) for gate in gates]


class ActivationNorm(Attribution):
    """The Euclidean norm of a unit's activations over all tokens, as a control: no gradient."""

    reads_gradients = False

    @override
    def of_token(
        self,
        activation: Float[Tensor, "examples tokens units"],
        gradient: Float[Tensor, "examples tokens units"],
    ) -> Float[Tensor, "examples tokens units"]:
        return activation.square()

    @override
    def in_total(self, sums: Float[Tensor, "*units"]) -> Float[Tensor, "*units"]:
        return sums.sqrt()


def scores_by_example(
    layer: Layer, contributions: Mapping[str, Float[Tensor, "{examples} _"]], examples: int
) -> Scores:
    """Arrange the contributions in one layer, by kind of unit, as scores with examples in front.

    A kind of which nothing is known counts as nothing.
    """
    known = next(iter(contributions.values()))
    sizes = {HEADS: layer.heads} | {kind: layer.size_of(kind) for kind in _KINDS}
    of = {
        kind: contributions.get(kind, known.new_zeros(examples, size))
        for kind, size in sizes.items()
    }
    shape = (examples, layer.heads, layer.head_size)
    return Scores(
        heads=of[HEADS],
        query_key=of[QUERY_KEY].view(shape),
        value=of[VALUE].view(shape),
        neurons=of[NEURONS],
        blocks=torch.stack([of[HEADS].sum(1), of[NEURONS].sum(1)], 1),
        layer=of[HEADS].sum(1) + of[NEURONS].sum(1),
    )


_KINDS = (QUERY_KEY, VALUE, NEURONS)
