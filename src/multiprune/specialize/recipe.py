"""Settings of specialization: ranking of units, and calibration examples."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from multiprune.arguments import check_number, check_several
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
from multiprune.pruning.removal import LAYERS
from multiprune.pruning.sites import Sites, linear_outputs, projection_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from multiprune.budget import Budget

LABELS = GOLD, PSEUDO = "gold", "pseudo"
TOGETHER, BY_MODULE = "together", "by_module"
NO_REPAIR, RESCALE = "none", "rescale"

#: Where units are read off.
SITES: Mapping[str, Sites] = {"outputs": linear_outputs, "gates": projection_inputs}
TOKENS: Mapping[str, TokenReduction] = {
    "max": max_over_tokens,
    "sum": sum_over_tokens,
    "mean": mean_over_tokens,
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is cut; ``conf/recipe.yaml`` says what each setting means, and its default.

    Options that the method does not have play no part.
    """

    budget: Budget
    method: str
    at: str | None
    tokens: str
    absolute: bool
    steps: int
    granularity: Sequence[str]
    rank: str | None
    rounds: int
    repair: str
    examples: int
    labels: str
    weight_by_confidence: bool
    seed: int

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if (value := getattr(self, name)) not in [*allowed]:
                shown = ", ".join("null" if one is None else str(one) for one in allowed)
                raise ValueError(f"`{name}` must be one of {shown}, but is {value!r}.")
        for name, least in {"rounds": 1, "examples": 1, "seed": 0}.items():
            check_number(name, getattr(self, name), at_least=least, whole=True)
        check_several("granularity", self.granularity)
        if self.repair == RESCALE and LAYERS in self.granularity:
            raise ValueError(
                "Layers must all stay to be rescaled, but `granularity` lets them go: leave out "
                "`layers`, or use `repair=none`."
            )

    @property
    def relative(self) -> bool:
        """Whether units compare with those of their kind and layer only."""
        return (self.rank or METHODS[self.method].rank) == BY_MODULE

    def sites(self, default: str) -> Sites:
        """Return where units are read off."""
        return SITES[self.at or default]

    def settings(self) -> dict[str, Any]:
        """Return all but the budget, by name."""
        names = [one.name for one in fields(self) if one.name != "budget"]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Method:
    """A way to rank units.

    Attributes:
        make: attribution, or importance that needs no examples, from a recipe.
        rank: what units compare with, unless the recipe says.
        options: which settings of the recipe it has; draws are told apart by their seed anyway.
    """

    make: Callable[[Recipe], Attribution | Importance]
    rank: str = TOGETHER
    options: tuple[str, ...] = ()


#: By the score that is left of MiniLM on GLUE tasks, Fisher information comes first.
METHODS: Mapping[str, Method] = {
    "attribution": Method(
        lambda one: ActivationGradient(
            tokens=TOKENS[one.tokens], absolute=one.absolute, sites=one.sites("outputs")
        ),
        # CRISPR ranks all together, which measures worse with heads beside neurons.
        rank=BY_MODULE,
        options=("at", "tokens", "absolute"),
    ),
    "integrated-gradients": Method(
        lambda one: IntegratedGradients(steps=one.steps, sites=one.sites("gates")),
        options=("at", "steps"),
    ),
    "fisher": Method(lambda one: Fisher(sites=one.sites("gates")), options=("at",)),
    "taylor": Method(lambda one: Taylor(sites=one.sites("gates")), options=("at",)),
    "activation-norm": Method(
        lambda one: ActivationNorm(sites=one.sites("gates")), rank=BY_MODULE, options=("at",)
    ),
    "magnitude": Method(lambda _: WeightMagnitude(), rank=BY_MODULE),
    "random": Method(lambda one: RandomImportance(seed=one.seed), rank=BY_MODULE),
}

_CHOICES: Mapping[str, Iterable[object]] = {
    "method": METHODS,
    "at": (None, *SITES),
    "tokens": TOKENS,
    "absolute": (False, True),
    "rank": (None, TOGETHER, BY_MODULE),
    "repair": (NO_REPAIR, RESCALE),
    "labels": LABELS,
    "weight_by_confidence": (False, True),
}
