"""A slow implementation of the rule by which units go: plain lists, all counted anew each time."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from multiprune.pruning.importance import Scores
from multiprune.pruning.removal import GRANULARITIES, Kept, UnitCosts

#: What a layer or a block consists of, by its kind and number.
PARTS = {
    ("layers", 0): GRANULARITIES,
    ("blocks", 0): ("heads", "head_dimensions"),
    ("blocks", 1): ("neurons",),
}


def dense(heads: int = 2, size: int = 2, neurons: int = 3) -> Kept:
    def everything(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=torch.bool)

    return Kept(
        everything(heads), everything(heads, size), everything(heads, size), everything(neurons)
    )


@dataclass
class SlowLayer:
    heads: list[bool]
    query_key: list[list[bool]]
    value: list[list[bool]]
    neurons: list[bool]
    dimensions_to_go: int = 0
    shut: tuple[bool, bool] = (False, False)
    is_dropped: bool = False

    @property
    def gone(self) -> bool:
        return not any(self.blocks())

    def blocks(self) -> list[bool]:
        parts = zip(self.shut, (self.heads, self.neurons), strict=True)
        return [any(units) and not shut for shut, units in parts]

    def dimensions(self) -> int:
        return sum(self.value[0]) - self.dimensions_to_go

    def size(self, costs: UnitCosts) -> int:
        if self.gone:
            return 0
        has_attention, has_feed_forward = self.blocks()
        size = costs.rest
        if has_attention:
            size += sum(self.heads) * self.dimensions() * costs.head_dimension + costs.attention
        if has_feed_forward:
            size += sum(self.neurons) * costs.neuron + costs.feed_forward
        return size


def root_mean_square(values: list[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))


def of_kept(values: list[float], kept: list[bool]) -> list[float]:
    return [value for value, keep in zip(values, kept, strict=True) if keep]


def slow_candidates(
    of: list[Scores], layers: list[SlowLayer], granularity: list[str]
) -> list[tuple[float, str, int, int]]:
    found = []
    alive = [number for number, layer in enumerate(layers) if not layer.gone]
    whole = root_mean_square([float(of[number].layer) for number in alive])
    there = [of_kept(of[number].blocks.tolist(), layers[number].blocks()) for number in alive]
    of_blocks = root_mean_square([value for two in there for value in two])
    for number in alive:
        score, layer = of[number], layers[number]
        if "layers" in granularity:
            found.append((float(score.layer) / whole, "layers", number, 0))
        if "blocks" in granularity:
            found += [
                (float(score.blocks[index]) / of_blocks, "blocks", number, index)
                for index in (0, 1)
                if layer.blocks()[index]
            ]
        for kind, kept in (("heads", layer.heads), ("neurons", layer.neurons)):
            if kind in granularity and any(kept):
                values = getattr(score, kind).tolist()
                scale = root_mean_square(of_kept(values, kept))
                found += [
                    (values[index] / scale, kind, number, index)
                    for index in range(len(values))
                    if kept[index]
                ]
        if "head_dimensions" in granularity and any(layer.heads):
            ranked = []
            for values, masks in (
                (score.query_key.tolist(), layer.query_key),
                (score.value.tolist(), layer.value),
            ):
                left = [
                    sorted(of_kept(values[head], masks[head]))
                    for head in range(len(layer.heads))
                    if layer.heads[head]
                ]
                scale = root_mean_square([value for row in left for value in row])
                means = [sum(column) / len(left) for column in zip(*left, strict=True)]
                ranked.append([mean / scale for mean in means])
            for index, (one, other) in enumerate(zip(*ranked, strict=True)):
                found.append(((one + other) / 2, "head_dimensions", number, index))
    return sorted(found, key=lambda one: (one[0], GRANULARITIES.index(one[1]), *one[2:]))


class SlowRemoval:
    """What is left of layers, changed in place; each candidate is tried before it goes."""

    def __init__(self, layers: list[SlowLayer], costs: list[UnitCosts]) -> None:
        self.layers, self.costs = layers, costs
        self.totals = [self.total()]
        self.done: list[tuple[float, str, int, int]] = []

    def total(self) -> int:
        return sum(one.size(cost) for one, cost in zip(self.layers, self.costs, strict=True))

    def go(self, candidate: tuple[float, str, int, int]) -> None:
        _, kind, number, index = candidate
        layer = self.layers[number]
        if layer.gone or candidate in self.done:
            return
        if kind == "layers" and sum(not one.gone for one in self.layers) > 1:
            layer.shut, layer.is_dropped = (True, True), True
        elif kind == "blocks" and sum(sum(one.blocks()) for one in self.layers) > 1:
            layer.shut = (layer.shut[0] or index == 0, layer.shut[1] or index == 1)
        elif kind == "heads" and sum(layer.heads) > 1 and layer.blocks()[0]:
            layer.heads[index] = False
        elif kind == "neurons" and sum(layer.neurons) > 1 and layer.blocks()[1]:
            layer.neurons[index] = False
        elif kind == "head_dimensions" and layer.dimensions() > 1 and layer.blocks()[0]:
            layer.dimensions_to_go += 1

    def saving(self, candidate: tuple[float, str, int, int]) -> int:
        before, layer = self.total(), copy.deepcopy(self.layers[candidate[2]])
        self.go(candidate)
        after = self.total()
        self.layers[candidate[2]] = layer
        return before - after

    def bring_back(self, size: int) -> None:
        before = -1
        while before != self.total():
            before = self.total()
            for _, kind, number, index in sorted(self.done, key=lambda one: -one[0]):
                layer = self.layers[number]
                whole = copy.deepcopy(layer)
                if kind == "blocks" and not layer.is_dropped:
                    layer.shut = (layer.shut[0] and index != 0, layer.shut[1] and index != 1)
                elif kind == "heads" and layer.blocks()[0]:
                    layer.heads[index] = True
                elif kind == "neurons" and layer.blocks()[1]:
                    layer.neurons[index] = True
                if self.total() > size:
                    self.layers[number] = whole
        self.totals[-1] = self.total()

    def take(self, candidate: tuple[float, str, int, int], least: int) -> None:
        saving = self.saving(candidate)
        if saving and self.total() - saving > least:
            self.go(candidate)
            self.done.append(candidate)
            self.totals.append(self.total())


def slow_removal(
    of: list[Scores],
    layers: list[SlowLayer],
    costs: list[UnitCosts],
    size: int,
    granularity: list[str],
) -> list[int]:
    """Remove in place; return the total after each removal."""
    candidates = slow_candidates(of, layers, granularity)
    removal = SlowRemoval(layers, costs)
    smallest = min(filter(None, map(removal.saving, candidates)), default=0)
    while removal.total() > size:
        before = len(removal.totals)
        for candidate in candidates:
            # Units of a layer or block that may go, but not as a whole, come in its place.
            parts = list(PARTS.get((candidate[1], candidate[3]), ()))
            kinds = parts if parts and removal.saving(candidate) > 0 else []
            units = [one for one in candidates if one[1] in kinds and one[2] == candidate[2]]
            for one in [candidate, *units]:
                if removal.total() > size:
                    removal.take(one, size - smallest)
        if len(removal.totals) == before:
            left = [(removal.saving(one), place) for place, one in enumerate(candidates)]
            saving, place = min((one for one in left if one[0]), default=(0, 0))
            if not saving:
                break
            removal.take(candidates[place], -1)
    if size - removal.total() >= smallest:
        removal.bring_back(size)
    for score, layer in zip(of, layers, strict=True):
        for values, masks in (
            (score.query_key.tolist(), layer.query_key),
            (score.value.tolist(), layer.value),
        ):
            for row, mask in zip(values, masks, strict=True):
                for _ in range(0 if layer.gone else layer.dimensions_to_go):
                    least = min((row[i], i) for i in range(len(row)) if mask[i])[1]
                    mask[least] = False
        layer.dimensions_to_go = 0
    return removal.totals


def random_scores(generator: torch.Generator, heads: int, size: int, neurons: int) -> Scores:
    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64) + 0.01

    units = (draw(heads), draw(heads, size), draw(heads, size), draw(neurons))
    return Scores(*units, blocks=draw(2), layer=draw())


def slow_layer(kept: Kept) -> SlowLayer:
    return SlowLayer(**{kind: mask.tolist() for kind, mask in vars(kept).items()})


def assert_equal(kept: list[Kept], layers: list[SlowLayer]) -> None:
    for one, slow in zip(kept, layers, strict=True):
        assert one.dropped == slow.gone
        if slow.gone:
            continue
        assert one.blocks.tolist() == slow.blocks()
        if one.blocks[0]:
            assert one.heads.tolist() == slow.heads
        if one.blocks[1]:
            assert one.neurons.tolist() == slow.neurons
        assert one.query_key.tolist() == slow.query_key
        assert one.value.tolist() == slow.value
