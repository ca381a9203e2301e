"""Attribution on a few examples, without training."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from multiprune.models.structure import layers_of
from multiprune.pruning.importance import Importance, Scores
from multiprune.pruning.recorder import Recorder, added

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from multiprune.models.structure import Layer
    from multiprune.pruning.attribution import Attribution

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class LogProbabilities:
    """What is attributed: log-probabilities of the answers to a batch.

    ``weights`` are those of the examples, 1 by default.
    """

    values: Float[Tensor, "examples"]
    weights: Float[Tensor, "examples"] | None = None


def attributed(
    model: nn.Module,
    encoder: nn.Module,
    method: Attribution,
    batches: Iterable[Batch],
    log_probabilities: Callable[[Batch], LogProbabilities],
) -> list[Scores]:
    """Return what the units of ``encoder``, a part of ``model``, contribute to its answers.

    By layer, on the CPU. The model stays as it is, and answers without dropout meanwhile; memory
    does not grow with the number of batches. No gradients of weights are computed.
    """
    recorder = Recorder(encoder, layers_of(encoder), method)
    sums: list[Scores] = []
    with _only_activations(model, encoder):
        recorder.attach()
        try:
            for batch in batches:
                sums = added(sums, _of_batch(recorder, method, batch, log_probabilities))
        finally:
            recorder.detach()
    if not sums:
        raise ValueError("No batches were given to attribute on.")
    return [Scores(*(method.in_total(part) for part in vars(one).values())).cpu() for one in sums]


def _of_batch(
    recorder: Recorder,
    method: Attribution,
    batch: Batch,
    log_probabilities: Callable[[Batch], LogProbabilities],
) -> list[Scores]:
    sums: list[Scores] = []
    for run in method.passes(recorder.places):
        recorder.run = run
        with torch.set_grad_enabled(method.reads_gradients):
            answered = log_probabilities(batch)
            if method.reads_gradients:
                answered.values.sum().backward()  # type: ignore[no-untyped-call]
        sums = added(sums, recorder.take(answered.weights))
    return sums


@contextmanager
def _only_activations(model: nn.Module, encoder: nn.Module) -> Iterator[None]:
    """Have gradients flow to what the embeddings give, and to no weight; and no dropout."""
    trained = [one for one in model.parameters() if one.requires_grad]
    modes = {module: module.training for module in model.modules()}

    def begin_here(_: nn.Module, _args: Any, output: Tensor) -> Tensor:
        return output.requires_grad_(torch.is_grad_enabled())

    handles = [one.register_forward_hook(begin_here) for one in _token_embeddings(encoder)]
    for one in trained:
        one.requires_grad_(False)
    model.eval()
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for one in trained:
            one.requires_grad_(True)
        for module, training in modes.items():
            module.training = training


def _token_embeddings(encoder: Any) -> set[nn.Module]:
    """Return what passes begin with: a decoder has embeddings of its own, tied or not."""
    if not encoder.config.is_encoder_decoder:
        return {encoder.get_input_embeddings()}
    return {one.get_input_embeddings() for one in (encoder.get_encoder(), encoder.get_decoder())}


class Attributed(Importance):
    """Importance that was attributed before.

    Args:
        scores: by layer.
        per_parameter: rank all units together, by what they contribute per parameter; otherwise
            relative to their kind and layer.
    """

    def __init__(self, scores: Sequence[Scores], *, per_parameter: bool = True) -> None:
        self._scores = list(scores)
        self.is_loss = per_parameter

    @override
    def measure(self, layer: Layer, number: int) -> Scores:
        return self._scores[number]
