"""Hidden dimensions: matching columns of embeddings and of all layers.

Every layer adds to one stream of hidden states, so that a dimension goes everywhere at once: from
the embeddings, the norms on the stream, the inputs of what reads it and the outputs of what writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from multiprune.models.architectures import HIDDEN_KNOWN, ROWS
from multiprune.models.cut import cut_parameter, resize_parameter
from multiprune.models.structure import architecture_of, layers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from multiprune.tasks.outputs.heads import AlongHidden


@dataclass(frozen=True)
class HiddenStates:
    """What an encoder, and the heads on it, have along its hidden dimensions.

    Attributes:
        embeddings: matrices of which they are the columns.
        norms: on the stream, that of the embeddings first; then those of heads.
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


def hidden_states_of(encoder: PreTrainedModel, model: nn.Module | None = None) -> HiddenStates:
    """Return what an encoder has along its hidden dimensions, and what else of ``model`` has.

    Raises:
        ValueError: if it is not known of its architecture, or of something else in the model.
    """
    kind = getattr(getattr(encoder, "config", None), "model_type", type(encoder).__name__)
    if kind not in HIDDEN_KNOWN:
        raise ValueError(
            f"Hidden dimensions are known of {', '.join(HIDDEN_KNOWN)}, but the encoder is a "
            f"{kind!r}."
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
    for head in [] if model is None else _heads_of(model, encoder):
        readers += head.readers
        writers += head.writers
        norms += head.norms
    return HiddenStates(embeddings, norms, readers, writers)


def _heads_of(model: nn.Module, encoder: nn.Module) -> Iterator[AlongHidden]:
    """Yield what heads outside the encoder have along the hidden dimensions, as they tell."""
    known = {id(one) for one in encoder.modules()}
    for path, module in model.named_modules():
        if id(module) in known:
            continue
        if hasattr(module, "along_hidden"):
            yield module.along_hidden()
            known |= {id(one) for one in module.modules()}
        elif module._parameters:
            raise ValueError(
                "Hidden dimensions go from all that reads hidden states, but it is not known what "
                f"{path or type(model).__name__}, a {type(module).__name__}, reads: give the head "
                "that it is in a method `along_hidden` that returns an AlongHidden "
                "(multiprune.tasks.outputs.heads), or leave `hidden` out of `granularity`."
            )


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
    """Return a LayerNorm over the dimensions that are kept; others are 0 (CoFi's own).

    As torch's, it computes in single precision at least, whatever it is given.
    """
    states = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    mask = kept.to(states.dtype)
    count = mask.sum()
    mean = (states * mask).sum(-1, keepdim=True) / count
    centred = (states - mean) * mask
    variance = centred.square().sum(-1, keepdim=True) / count
    return (centred * torch.rsqrt(variance + norm.eps) * norm.weight + norm.bias) * mask


@torch.no_grad()
def zero_hidden(states: HiddenStates, kept: Bool[Tensor, "hidden"]) -> None:
    """Set to 0 what dimensions that are not kept have."""
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
    _note_size(encoder, states, len(index))


def resize_hidden(encoder: PreTrainedModel, states: HiddenStates, size: int) -> None:
    """Give an encoder the shapes of one that was cut; its weights are lost, to be loaded."""
    for module, name, dim in list(states.parameters()):
        resize_parameter(module, name, dim, size)
    _note_size(encoder, states, size)


def _note_size(encoder: PreTrainedModel, states: HiddenStates, size: int) -> None:
    for embedding in states.embeddings:
        embedding.embedding_dim = size
    for norm in states.norms:
        norm.normalized_shape = (size,)
    for linear in (*states.readers, *states.writers):
        linear.out_features, linear.in_features = linear.weight.shape
    encoder.config.hidden_size = size
