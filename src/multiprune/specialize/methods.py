"""What a person may choose to rank units by, by its name on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.pruning.attribution import (
    ActivationGradient,
    ActivationNorm,
    Attribution,
    Fisher,
    IntegratedGradients,
    Taylor,
    TokenReduction,
    max_over_tokens,
    mean_over_tokens,
    sum_over_tokens,
)
from multiprune.pruning.importance import Importance, RandomImportance, WeightMagnitude
from multiprune.pruning.sites import Sites, linear_outputs, projection_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Where units are read off.
SITES: Mapping[str, Sites] = {"outputs": linear_outputs, "gates": projection_inputs}
TOKENS: Mapping[str, TokenReduction] = {
    "max": max_over_tokens,
    "sum": sum_over_tokens,
    "mean": mean_over_tokens,
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Options of the methods; those that a method does not have play no part."""

    seed: int = 0
    at: str | None = None
    tokens: str = "max"
    absolute: bool = False
    steps: int = 8

    def sites(self, default: str) -> Sites:
        """Return where units are read off."""
        return SITES[self.at or default]


@dataclass(frozen=True)
class Method:
    """A way to rank units.

    Attributes:
        make: attribution, or importance that needs no examples, from options.
        relative: whether units compare with those of their kind and layer only, unless one asks.
        options: which of ``Choice`` it has; draws are told apart by their seed anyway.
    """

    make: Callable[[Choice], Attribution | Importance]
    relative: bool = False
    options: tuple[str, ...] = ()


#: By the score that is left of MiniLM on GLUE tasks, Fisher information comes first.
METHODS: Mapping[str, Method] = {
    "attribution": Method(
        lambda one: ActivationGradient(
            tokens=TOKENS[one.tokens], absolute=one.absolute, sites=one.sites("outputs")
        ),
        # CRISPR ranks all together, which measures worse with heads beside neurons.
        relative=True,
        options=("at", "tokens", "absolute"),
    ),
    "integrated-gradients": Method(
        lambda one: IntegratedGradients(steps=one.steps, sites=one.sites("gates")),
        options=("at", "steps"),
    ),
    "fisher": Method(lambda one: Fisher(sites=one.sites("gates")), options=("at",)),
    "taylor": Method(lambda one: Taylor(sites=one.sites("gates")), options=("at",)),
    "activation-norm": Method(
        lambda one: ActivationNorm(sites=one.sites("gates")), relative=True, options=("at",)
    ),
    "magnitude": Method(lambda _: WeightMagnitude(), relative=True),
    "random": Method(lambda one: RandomImportance(seed=one.seed), relative=True),
}
