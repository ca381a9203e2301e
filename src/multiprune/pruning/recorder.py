"""Hooks that record a forward and backward pass, per example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multiprune.models.architectures import VALUE
from multiprune.pruning.attribution import Pass, scores_by_example
from multiprune.pruning.importance import Scores
from multiprune.pruning.ready import NotReadyError
from multiprune.pruning.removal import HEADS
from multiprune.pruning.token_masks import token_masks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.utils.hooks import RemovableHandle

    from multiprune.models.structure import Layer
    from multiprune.pruning.attribution import Attribution
    from multiprune.pruning.sites import Site
    from multiprune.pruning.token_masks import TokenMasks


class Recorder:
    """Attributes what an encoder's passes lead to, from ``attach`` to ``detach``.

    Holds one number an example and unit, from a backward pass to the next ``take``.

    Args:
        encoder: the encoder, whose passes are told by its ``attention_mask``. Of an encoder-decoder
            only those tokens count that the decoder reads for the answer, if gradients tell.
        layers: of the encoder.
        method: what is gathered.
        wanted: asked before every pass whether it counts; all do by default.
        of_mean_loss: whether what is differentiated is the mean loss of a batch rather than the sum
            of its log-probabilities.
    """

    def __init__(
        self,
        encoder: nn.Module,
        layers: Sequence[Layer],
        method: Attribution,
        *,
        wanted: Callable[[], bool] | None = None,
        of_mean_loss: bool = False,
    ) -> None:
        self._encoder, self._layers, self._method = encoder, layers, method
        self._sites = [(i, site) for i, layer in enumerate(layers) for site in method.sites(layer)]
        self._wanted, self._of_mean_loss = wanted, of_mean_loss
        self._records: list[_Record] = []
        self._sums: list[Scores] = []
        self._handles: list[RemovableHandle] = []
        self._of_pass: list[RemovableHandle] = []
        #: How the next passes are run.
        self.run = Pass()

    @property
    def places(self) -> int:
        """The number of sites."""
        return len(self._sites)

    def attach(self) -> None:
        """Begin to watch the encoder."""
        begin = self._encoder.register_forward_pre_hook(self._begin, with_kwargs=True)
        end = self._encoder.register_forward_hook(self._end, always_call=True)
        self._handles = [begin, end]

    def detach(self) -> None:
        """Leave the encoder as it was, and forget what was recorded."""
        self._end()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.forget()

    def forget(self) -> None:
        """Forget what was recorded."""
        self._records, self._sums = [], []

    def take(self, weights: Float[Tensor, "examples"] | None = None) -> list[Scores]:
        """Return the sums over the examples recorded since it was last called, by layer.

        ``weights`` are those of the examples of a single batch, 1 by default.
        """
        self._sum_up(weights)
        self._records = []
        sums, self._sums = self._sums, []
        return sums or [_zeros(layer) for layer in self._layers]

    def _sum_up(self, weights: Tensor | None = None) -> None:
        """Sum the records that a backward pass has filled."""
        filled = [record for record in self._records if record.contributions]
        self._records = [record for record in self._records if not record.contributions]
        for record in filled:
            sums = [self._sum_of(record, i, weights) for i in range(len(self._layers))]
            self._sums = added(self._sums, sums)

    def _sum_of(self, record: _Record, number: int, weights: Tensor | None) -> Scores:
        layer = self._layers[number]
        if number not in record.contributions:
            return _zeros(layer)
        by_example = scores_by_example(layer, record.contributions[number], len(record.masks.text))
        counted = (self._method.of_example(part) for part in vars(by_example).values())
        if weights is None:
            return Scores(*(part.sum(0) for part in counted))
        return Scores(*(torch.tensordot(weights.to(part), part, 1) for part in counted))

    def _begin(self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._wanted is not None and not self._wanted():
            return
        self._sum_up()
        masks = token_masks(encoder, args, kwargs)
        scale = -float(len(masks.text)) if self._of_mean_loss else 1.0
        record = _Record(self._method, masks, self.run, scale)
        self._records.append(record)
        for place, (number, site) in enumerate(self._sites):
            if self.run.place in (None, place):
                self._of_pass.append(record.watch(number, site))

    def _end(self, *passed: Any) -> None:
        if passed and self._of_pass:
            self._records[-1].watch_scores(passed[-1])
        for handle in self._of_pass:
            handle.remove()
        self._of_pass = []


class _Record:
    """What one pass leads to: by layer and kind of unit, of shape (examples, units)."""

    def __init__(self, method: Attribution, masks: TokenMasks, run: Pass, scale: float) -> None:
        self.method, self.masks, self.run, self.scale = method, masks, run, scale
        self.contributions: dict[int, dict[str, Tensor]] = {}
        self._has_gradients = torch.is_grad_enabled()

    def watch(self, number: int, site: Site) -> RemovableHandle:
        """Read a site of a layer in what is left of this pass."""
        if site.reads_inputs:

            def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
                return (self._pass_on(number, site, args[0]), *args[1:])

            return site.linear.register_forward_pre_hook(before)

        def after(_: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
            return self._pass_on(number, site, output)

        return site.linear.register_forward_hook(after)

    def watch_scores(self, output: Any) -> None:
        """Learn from the scores of a decoder which tokens it read for the answer."""
        scores = getattr(output, "logits", None)
        if self.masks.decoded is not None and scores is not None and scores.requires_grad:
            # The first gradient of all: those of the decoder's units come later.
            scores.register_hook(self.masks.narrow)

    def _pass_on(self, number: int, site: Site, activation: Tensor) -> Tensor:
        """Note an activation, and return it behind its gate."""
        # Relative positions, which DeBERTa also projects, are not those of tokens.
        if activation.shape[:2] != self.masks.of(decoding=site.decoding).shape:
            return activation
        # Without the graph: a hook of a tensor that holds the tensor would never be freed.
        own = activation.detach()
        gated = activation if self.run.gate == 1 else activation * self._gates(site, own)
        if not self.method.reads_gradients:
            self._add(number, site, own, own)
        elif self._has_gradients and not torch.is_grad_enabled():
            raise NotReadyError(
                "Attribution reads gradients of activations, which reentrant gradient "
                "checkpointing hides: enable it with {'use_reentrant': False}."
            )
        elif gated.requires_grad:
            gated.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self._add(number, site, own, gradient)
            )
        return gated

    def _gates(self, site: Site, activation: Tensor) -> Tensor:
        gates = activation.new_ones(activation.shape[-1])
        for _, part in site.parts:
            gates[part] = self.run.gate
        return gates

    def _add(
        self,
        number: int,
        site: Site,
        activation: Float[Tensor, "examples tokens units"],
        gradient: Float[Tensor, "examples tokens units"],
    ) -> None:
        dtype = torch.promote_types(activation.dtype, torch.float32)
        activation, gradient = activation.to(dtype), gradient.detach().to(dtype) * self.scale
        by_token = self.method.of_token(activation, gradient)
        for kind, part in site.parts:
            own = by_token[..., part]
            self._add_part(number, site, kind, own)
            if kind == VALUE:
                heads = own.reshape(*own.shape[:-1], -1, site.head_size).sum(-1)
                self._add_part(number, site, HEADS, heads)

    def _add_part(self, number: int, site: Site, kind: str, by_token: Tensor) -> None:
        mask = self.masks.of(decoding=site.decoding)
        by_example = self.run.weight * self.method.over_tokens(by_token, mask)
        here = self.contributions.setdefault(number, {})
        # A shared layer is passed several times, and several sites may read one kind of unit.
        here[kind] = here[kind] + by_example if kind in here else by_example


def added(sums: Sequence[Scores], more: Sequence[Scores]) -> list[Scores]:
    """Return sums with more added to them, by layer; to none at first."""
    if not sums:
        return list(more)
    return [
        Scores(**{name: part + getattr(other, name) for name, part in vars(one).items()})
        for one, other in zip(sums, more, strict=True)
    ]


def _zeros(layer: Layer) -> Scores:
    weight = layer.output_of(VALUE).weight
    known = {HEADS: torch.zeros(1, layer.heads, device=weight.device)}
    return Scores(*(part[0] for part in vars(scores_by_example(layer, known, 1)).values()))
