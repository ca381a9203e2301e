"""Hidden dimensions: matching columns of embeddings and of all layers.

Every layer adds to one stream of hidden states, so that a dimension goes everywhere at once: from
the embeddings, the norms on the stream, the inputs of what reads it and the outputs of what writes.
No pruner removes them yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from multiprune.models.architectures import ROWS
from multiprune.models.cut import cut_parameter
from multiprune.models.structure import architecture_of, layers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

#: Whose embeddings are summed and normed once, and whose layers norm the sum of each block.
KNOWN = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")

#: The name of the mask beside the parameters of a norm.
MASK = "hidden_mask"


@dataclass(frozen=True)
class HiddenStates:
    """What an encoder has along its hidden dimensions.

    Attributes:
        embeddings: matrices of which they are the columns.
        norms: on the stream, that of the embeddings first.
        readers: linear layers of which they are inputs.
        writers: linear layers of which they are outputs.
    """

    embeddings: list[nn.Embedding]
    norms: list[nn.LayerNorm]
    readers: list[nn.Linear]
    writers: list[nn.Linear]

    @property
    def size(self) -> int:
        """The number of hidden dimensions."""
        return len(self.norms[0].weight)

    def parameters(self) -> Iterator[tuple[nn.Module, str, int]]:
        """Yield each parameter, by module and name, and which of its dimensions they are."""
        for embedding in self.embeddings:
            yield embedding, "weight", 1
        for norm in self.norms:
            yield norm, "weight", 0
            yield norm, "bias", 0
        for reader in self.readers:
            yield reader, "weight", 1
        for writer in self.writers:
            yield writer, "weight", 0
            if writer.bias is not None:
                yield writer, "bias", 0

    def cost(self) -> int:
        """Return how many parameters one dimension has, with the units that there are now."""
        found = (getattr(module, name) for module, name, _ in self.parameters())
        return sum(one.numel() // self.size for one in found)


def hidden_states_of(encoder: PreTrainedModel) -> HiddenStates:
    """Return what an encoder has along its hidden dimensions.

    Raises:
        ValueError: if it is not known of its architecture.
    """
    if encoder.config.model_type not in KNOWN:
        raise ValueError(
            f"Hidden dimensions are known of {', '.join(KNOWN)}, but the encoder is "
            f"{encoder.config.model_type!r}."
        )
    architecture, root = architecture_of(encoder), encoder.get_submodule("embeddings")
    embeddings = [one for one in root.modules() if isinstance(one, nn.Embedding)]
    norms = [one for one in root.modules() if isinstance(one, nn.LayerNorm)]
    readers: list[nn.Linear] = []
    writers: list[nn.Linear] = []
    for layer in layers_of(encoder):
        module = encoder.get_submodule(layer.path)
        found = (module.get_submodule(path) for path in architecture.norms)
        norms += [one for one in found if isinstance(one, nn.LayerNorm)]
        for linear, slices in layer.linear_layers():
            (readers if slices.dim == ROWS else writers).append(linear)
    pooler = getattr(encoder, "pooler", None)
    if pooler is not None:
        readers.append(pooler.dense)
    return HiddenStates(embeddings, norms, readers, writers)


@torch.no_grad()
def gate_gradients(states: HiddenStates) -> Float[Tensor, "hidden"]:
    """Return ``dL/dz`` of gates, open at 1, on hidden dimensions behind every norm.

    There CoFi multiplies by them (Xia et al. 2022). With ``y = z (w x + b)``, ``w dL/dw + b dL/db``
    is ``z dL/dz``; what a dimension does to the mean and the variance of others is left out.
    """
    total = torch.zeros_like(states.norms[0].weight)
    for norm in states.norms:
        for one in (norm.weight, norm.bias):
            if one.grad is not None:
                total += one * one.grad
    return total.float()


def norm_over(
    inputs: Float[Tensor, "*batch hidden"], norm: nn.LayerNorm, kept: Bool[Tensor, "hidden"]
) -> Float[Tensor, "*batch hidden"]:
    """Return a LayerNorm over the dimensions that are kept; others are 0 (CoFi's own)."""
    mask = kept.to(inputs.dtype)
    count = mask.sum()
    mean = (inputs * mask).sum(-1, keepdim=True) / count
    centred = (inputs - mean) * mask
    variance = centred.square().sum(-1, keepdim=True) / count
    return (centred * torch.rsqrt(variance + norm.eps) * norm.weight + norm.bias) * mask


def attach_mask(states: HiddenStates) -> list[RemovableHandle]:
    """Give every norm a mask, a buffer, and let it norm what is kept by it, until it is cut."""

    def over_kept(norm: Any, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        return norm_over(inputs[0], norm, norm.get_buffer(MASK))

    handles = []
    for norm in states.norms:
        norm.register_buffer(MASK, torch.ones_like(norm.weight, dtype=torch.bool))
        handles.append(norm.register_forward_hook(over_kept))
    return handles


@torch.no_grad()
def mask_hidden(states: HiddenStates, kept: Bool[Tensor, "hidden"]) -> None:
    """Set to 0 what dimensions that are not kept have, and let norms leave them out."""
    for norm in states.norms:
        norm.get_buffer(MASK).copy_(kept)
    for module, name, dim in states.parameters():
        parameter: Tensor = getattr(module, name)
        shape = [-1 if one == dim else 1 for one in range(parameter.dim())]
        parameter.mul_(kept.view(shape))


def cut_hidden(
    encoder: PreTrainedModel,
    states: HiddenStates,
    kept: Bool[Tensor, "hidden"],
    optimizer: Optimizer | None = None,
) -> None:
    """Cut an encoder, and the optimizer's moments of it, to the dimensions that are kept.

    If others are 0 and norms leave them out, it computes what it computed before, at the dimensions
    that are left. ``config.hidden_size`` is their number.
    """
    index = kept.nonzero()[:, 0]
    for module, name, dim in list(states.parameters()):
        cut_parameter(module, name, dim, index, optimizer)
    for embedding in states.embeddings:
        embedding.embedding_dim = len(index)
    for norm in states.norms:
        norm.normalized_shape = (len(index),)
    for linear in (*states.readers, *states.writers):
        linear.out_features, linear.in_features = linear.weight.shape
    name = encoder.config.attribute_map.get("hidden_size", "hidden_size")
    setattr(encoder.config, name, len(index))
