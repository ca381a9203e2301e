"""What the encoder of a run has gone through: the runs before it, each a link of a chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multiprune.report.records.json_value import value_at
from multiprune.report.records.runs import RESULTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.records.results import Scores

#: What happens to weights in a run.
DENSE, PRUNED, KEPT = "dense", "pruned", "mask kept"

_MASKED_LANGUAGE = ".MaskedLanguage"


@dataclass(frozen=True, kw_only=True)
class Link:
    """One run of a chain.

    Attributes:
        dense: what its budget counts: so many parameters were ``asked`` for and ``kept``.
        mask: of its masks, the same where these are.
        validation: all metrics by task.
        config: the composed configuration.
    """

    tasks: tuple[str, ...]
    seed: int
    steps: int
    dense: int
    asked: int
    kept: int
    mask: str
    validation: Scores
    config: Mapping[str, Any]

    @property
    def pretrains(self) -> bool:
        """Whether all that it has learned is masked language modelling."""
        targets = [str(one.get("_target_", "")) for one in self.config["task"].values()]
        return all(target.endswith(_MASKED_LANGUAGE) for target in targets)

    @property
    def density(self) -> float:
        """The share that was kept."""
        return self.kept / self.dense


def read_chain(content: Mapping[str, Any]) -> tuple[Link, ...]:
    """Return the runs before the one whose results are ``content``, the first first, and itself.

    Raises:
        ValueError: if the results are not whole (says what is wrong).
    """
    before = content.get("lineage", [])
    names = [f"run {number} in the lineage of {RESULTS}" for number in range(1, len(before) + 1)]
    links = [_link(one, name) for one, name in zip(before, names, strict=True)]
    return (*links, _link(content, RESULTS))


def described(links: Sequence[Link], asked: int) -> tuple[str, ...]:
    """Say of each link what it has learned from, and whether weights went in it.

    The density is left out where as much was asked for as in the end, ``asked``.
    """
    words = []
    for before, link in zip((None, *links), links, strict=False):
        what = _what(link, before)
        density = f" to {link.density:.3g}" if what == PRUNED and link.asked != asked else ""
        words.append(f"{', '.join(link.tasks)} {what}{density}")
    return tuple(words)


def _what(link: Link, before: Link | None) -> str:
    if link.kept == link.dense:
        return DENSE
    return KEPT if before is not None and link.mask == before.mask else PRUNED


def _link(content: Any, name: str) -> Link:
    tasks = value_at(content, "config.task", dict, name=name)
    return Link(
        tasks=tuple(tasks),
        seed=value_at(content, "seed", int, name=name),
        steps=value_at(content, "steps", int, name=name),
        dense=value_at(content, "budget.dense", int, name=name),
        asked=value_at(content, "budget.asked", int, name=name),
        kept=value_at(content, "budget.kept", int, name=name),
        mask=value_at(content, "mask_sha256", str, name=name),
        validation=value_at(content, "validation", dict, name=name),
        config=value_at(content, "config", dict, name=name),
    )
