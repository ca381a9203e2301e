"""Merge the weights of several runs, after checking that they come from one encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from multiprune.export.packed import Kept
from multiprune.runs.masks import Mask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from multiprune.export.shipped import ShippedModel

#: Entries of a configuration that make no difference to what a trained encoder computes.
_WITHOUT_EFFECT = ("transformers_version", "_name_or_path")


class SharedWeights:
    """Models of one encoder, added one by one: its weights, and what each model keeps of them.

    Matrices may differ in what was kept of them, and by nothing else: a weight that two models keep
    is the same in both, and so is every other tensor.

    Attributes:
        weights: of the encoder, by name; zero where no model keeps a weight.
        models: in the order in which they were added.
    """

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.models: list[Kept] = []
        self._runs: list[str] = []
        self._config: dict[str, Any] = {}
        self._vocabulary: dict[str, int] = {}

    def add(self, run: str, model: ShippedModel) -> None:
        """Add the model of ``run``.

        Raises a ValueError, one sentence that names two runs, where they do not fit.
        """
        weights = model.encoder.state_dict()
        config, vocabulary = _effective(model.encoder.config.to_dict()), model.tokenizer.get_vocab()
        if not self._runs:
            self.weights = {path: weight.clone() for path, weight in weights.items()}
            self._config, self._vocabulary = config, vocabulary
        self._check_tasks(run, model)
        self._check_same("config.json", config, self._config, run)
        self._check_same("the vocabulary", vocabulary, self._vocabulary, run)
        self._check_same("the encoder", _kinds(weights), _kinds(self.weights), run)
        for path, weight in weights.items():
            self._merge(run, path, weight)
        masks = {
            path: Mask.of((weight != 0).numpy())
            for path, weight in weights.items()
            if weight.dim() == 2
        }
        self.models.append(Kept(list(model.meaning), masks))
        self._runs.append(run)

    def _merge(self, run: str, path: str, weight: Tensor) -> None:
        """Take over what a run keeps of a tensor."""
        shared = self.weights[path]
        moved = shared != weight
        if weight.dim() == 2:
            moved &= (shared != 0) & (weight != 0)
        if moved.any():
            raise ValueError(
                "Packed runs must have the same encoder but for weights that were pruned (train "
                f"them with pruner=frozen_movement from one encoder), but {path} is not the same "
                f"in {self._first_with(path, moved)} and {run}."
            )
        torch.where(shared != 0, shared, weight, out=shared)

    def _first_with(self, path: str, moved: Tensor) -> str:
        """Return the first run that keeps a weight of those that another one has otherwise."""
        for run, model in zip(self._runs, self.models, strict=True):
            if path not in model.masks or (model.masks[path].unpacked() & moved.numpy()).any():
                return run
        raise AssertionError("what is shared was kept by some run")

    def _check_tasks(self, run: str, model: ShippedModel) -> None:
        for other, known in zip(self._runs, self.models, strict=True):
            for task in model.meaning:
                if task in known.tasks:
                    raise ValueError(
                        f"The task {task} is in both {other} and {run}: pack one of them."
                    )

    def _check_same(
        self, what: str, found: Mapping[str, Any], expected: Mapping[str, Any], run: str
    ) -> None:
        for key in sorted(found.keys() | expected.keys()):
            if found.get(key) != expected.get(key):
                raise ValueError(
                    f"Packed runs must be of one encoder, but in {what} {key} is "
                    f"{expected.get(key, 'missing')} in {self._runs[0]} and "
                    f"{found.get(key, 'missing')} in {run}."
                )


def _effective(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in config.items()
        if key not in _WITHOUT_EFFECT and "dropout" not in key
    }


def _kinds(weights: Mapping[str, Tensor]) -> dict[str, str]:
    return {path: f"{one.dtype} {tuple(one.shape)}" for path, one in weights.items()}
