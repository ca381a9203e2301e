"""Build pruned encoders with the layer shapes that ``config.json`` has in ``multiprune``.

This file needs ``torch`` and ``transformers`` only. A copy lies in every exported folder, so that
``AutoModel.from_pretrained(folder, trust_remote_code=True)`` works without multiprune.
"""

from __future__ import annotations

import contextlib
import copy
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

#: The key of ``config.json`` that holds the shapes.
KEY = "multiprune"

#: Under what name the position bias of all heads passes through an attention that has fewer.
_ALL_HEADS = "position_bias_of_all_heads"


class DroppedLayer(nn.Module):
    """What is left of a layer without attention and feed-forward network: its norms.

    Or of an attention, in a layer that keeps its feed-forward network; ``is_branch`` says that what
    it returns is added to what it read, so that it returns zeros.

    Norms keep their paths and their order, so that their weights keep their names, and an optimizer
    that is made anew for a resumed run numbers them as before. An empty tensor stands where the
    dense layer has its first matrix: whoever loads it into the dense architecture is told so.
    """

    def __init__(
        self, layer: nn.Module, norms: list[str], *, returns_tuple: bool, is_branch: bool = False
    ) -> None:
        super().__init__()
        self.norms, self.returns_tuple, self.is_branch = list(norms), returns_tuple, is_branch
        for path, module in layer.named_modules():
            if path in norms:
                _attach(self, path, module)
        path, first = next(
            (path, one) for path, one in layer.named_modules() if isinstance(one, nn.Linear)
        )
        _attach(self, path, marker := nn.Module())
        marker.register_buffer("weight", first.weight.detach().new_empty(0))
        # ModernBERT's encoder asks each layer which attention mask it takes.
        if hasattr(layer, "attention_type"):
            self.attention_type = layer.attention_type

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Apply the norms; take whatever a layer of the architecture takes."""
        for path in self.norms:
            hidden_states = self.get_submodule(path)(hidden_states)
        if self.is_branch:
            # A norm before it has a gradient, of zeros: distributed training waits for one.
            hidden_states = hidden_states * 0
        return (hidden_states, None) if self.returns_tuple else hidden_states


class FactoredLinear(nn.Linear):
    """A linear layer whose matrix is the product of ``weight``, (out, rank), and ``down.weight``.

    Where a dense layer has ``weight``, this one has a smaller matrix: whoever loads it into the
    dense architecture is told so.
    """

    def __init__(self, down: nn.Linear, up: nn.Linear) -> None:
        super().__init__(1, 1, device="meta")
        self.weight, self.bias, self.down = up.weight, up.bias, down
        self.out_features, self.in_features = up.out_features, up.in_features

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Map ``(..., in)`` to ``(..., out)``."""
        return super().forward(self.down(states))


class PositionBias:
    """A forward pre-hook that hands an attention the position bias of the heads it still has."""

    def __init__(self, heads: list[int]) -> None:
        self.heads = list(heads)

    def __call__(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Select the kept heads of ``position_bias``, shape (batch, heads, queries, keys)."""
        if len(args) > 2 and args[2] is not None:
            args = (*args[:2], args[2][:, self.heads], *args[3:])
        elif kwargs.get("position_bias") is not None:
            kwargs = kwargs | {"position_bias": kwargs["position_bias"][:, self.heads]}
        return args, kwargs

    @classmethod
    def attach(cls, attention: nn.Module, heads: list[int]) -> list[RemovableHandle]:
        """Let an attention have the heads ``heads`` of the dense model's."""
        return [attention.register_forward_pre_hook(cls(heads), with_kwargs=True)]


class SharedPositionBias(PositionBias):
    """The same where the first layer computes the position bias, and each hands it on.

    What is handed on is that of all heads. An attention to another sequence has none: it makes
    zeros of its own, and hands nothing on.
    """

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Select the kept heads of ``position_bias``; keep all of them for the next layer."""
        whole = kwargs.get("position_bias")
        if whole is None and getattr(module, "has_relative_attention_bias", False):
            whole = self._computed(module, args[0], kwargs.get("past_key_values"))
        selected = None if whole is None else whole[:, self.heads]
        return args, kwargs | {"position_bias": selected, _ALL_HEADS: whole}

    @classmethod
    def attach(cls, attention: nn.Module, heads: list[int]) -> list[RemovableHandle]:
        """Let an attention have the heads ``heads`` of the dense model's."""
        handing_on = attention.register_forward_hook(_hand_on_all_heads, with_kwargs=True)
        return [*super().attach(attention, heads), handing_on]

    def _computed(self, module: Any, states: torch.Tensor, cache: Any) -> torch.Tensor:
        seen = 0 if cache is None else int(cache.get_seq_length(module.layer_idx))
        queries = states.shape[1]
        bias: torch.Tensor = module.compute_bias(
            queries, seen + queries, device=states.device, past_seen_tokens=seen
        )
        return bias


#: By the key of ``config.json`` that holds the heads.
POSITION_BIASES: dict[str, type[PositionBias]] = {
    "position_bias": PositionBias,
    "shared_position_bias": SharedPositionBias,
}


def _hand_on_all_heads(_: nn.Module, __: Any, kwargs: dict[str, Any], output: Any) -> Any:
    states, _selected, *others = output
    return (states, kwargs[_ALL_HEADS], *others)


def reshape(encoder: nn.Module, shapes: dict[str, Any]) -> None:
    """Give the layers of a dense encoder their pruned shapes; the weights are not set.

    ``shapes`` maps ``linear`` to (outputs, inputs) by path, ``low_rank`` to ranks, ``attributes``
    to attributes of attentions, ``position_bias`` and ``shared_position_bias`` to the heads that an
    attention has kept, and ``dropped`` to what is left of a layer, or of an attention. ``one_head``
    says how the dense encoder was built.
    """
    for path, (outputs, inputs) in shapes.get("linear", {}).items():
        old = _linear(encoder, path)
        _replace(
            encoder, path, _like(old, inputs, outputs, bias=inputs > 0 and old.bias is not None)
        )
    for path, rank in shapes.get("low_rank", {}).items():
        old = _linear(encoder, path)
        down = _like(old, old.in_features, rank, bias=False)
        up = _like(old, rank, old.out_features, bias=old.bias is not None)
        _replace(encoder, path, FactoredLinear(down, up))
    for path, attributes in shapes.get("attributes", {}).items():
        for name, value in attributes.items():
            setattr(encoder.get_submodule(path), name, value)
    for key, kind in POSITION_BIASES.items():
        for path, heads in shapes.get(key, {}).items():
            kind.attach(encoder.get_submodule(path), heads)
    for path, dropped in shapes.get("dropped", {}).items():
        layer = encoder.get_submodule(path)
        _replace(encoder, path, DroppedLayer(layer, **dropped))


class PrunedEncoder:
    """What ``auto_map`` names: loads the encoder class of the configuration, and reshapes it."""

    @classmethod
    def from_pretrained(cls, path: str, *args: Any, **kwargs: Any) -> Any:
        """Load a pruned encoder from a folder or the hub, as ``AutoModel`` does."""
        from transformers import AutoConfig

        trusted = kwargs.pop("trust_remote_code", None)
        config = kwargs.pop("config", None)
        if config is None:
            config = AutoConfig.from_pretrained(path, trust_remote_code=trusted)
        register_code(config, path)
        built = pruned_class(config, cls.dense_class(config))
        return built.from_pretrained(path, *args, config=config, **kwargs)

    @classmethod
    def dense_class(cls, config: Any) -> Any:
        """Return the class that is reshaped."""
        return dense_class(config)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Do nothing: this class is registered by the folder it lies in."""


class PrunedWithHead(PrunedEncoder):
    """The same for an encoder with a head of its own, which is dense.

    Attributes:
        auto: the class of transformers that knows which head is meant.
    """

    auto = ""

    @classmethod
    def dense_class(cls, config: Any) -> Any:
        """Return the class with the head."""
        import transformers

        return getattr(transformers, cls.auto)._model_mapping[type(config)]


class PrunedForSequenceClassification(PrunedWithHead):
    """An encoder that classifies texts."""

    auto = "AutoModelForSequenceClassification"


class PrunedForTokenClassification(PrunedWithHead):
    """An encoder that classifies tokens."""

    auto = "AutoModelForTokenClassification"


class PrunedForQuestionAnswering(PrunedWithHead):
    """An encoder that finds answers in texts."""

    auto = "AutoModelForQuestionAnswering"


class PrunedForMultipleChoice(PrunedWithHead):
    """An encoder that chooses among texts."""

    auto = "AutoModelForMultipleChoice"


class PrunedForMaskedLM(PrunedWithHead):
    """An encoder that fills in tokens."""

    auto = "AutoModelForMaskedLM"


HEADS = (
    PrunedForSequenceClassification,
    PrunedForTokenClassification,
    PrunedForQuestionAnswering,
    PrunedForMultipleChoice,
    PrunedForMaskedLM,
)


def register_code(config: Any, source: Any) -> None:
    """Let the dense model of a configuration be the class in ``source`` that it names, if any.

    Where ``auto_map`` names what is in this file, the entry of the shapes says what it was before.
    """
    from transformers import AutoModel
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    shapes = getattr(config, KEY, None)
    named = getattr(config, "auto_map", None) or {}
    reference = named.get("AutoModel") if shapes is None else shapes.get("code")
    if reference is not None:
        kind: Any = get_class_from_dynamic_module(reference, source)
        kind.register_for_auto_class("AutoModel")
        AutoModel.register(type(config), kind, exist_ok=True)


def dense_class(config: Any) -> Any:
    """Return the class of an encoder of a configuration, or of an encoder-decoder that writes."""
    from transformers import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, MODEL_MAPPING

    is_encoder_decoder = config.is_encoder_decoder
    return (MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if is_encoder_decoder else MODEL_MAPPING)[
        type(config)
    ]


def pruned_class(config: Any, base: Any = None) -> Any:
    """Return a dense class whose encoder has the shapes of the ``multiprune`` entry of ``config``.

    ``base`` is one with an encoder as its base model; that of an encoder alone by default.
    """
    import inspect

    base = dense_class(config) if base is None else base
    has_pooler = "add_pooling_layer" in inspect.signature(base).parameters
    per_layer = config.to_dict().get("per_layer_config")

    def save_pretrained(self: Any, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("is_main_process", True):
            _write_code(self.config, Path(save_directory))
        cut_again = self.config.to_dict().get("per_layer_config")
        self.config.per_layer_config = cut_again or per_layer
        try:
            base.save_pretrained(self, save_directory, *args, **kwargs)
        finally:
            self.config.per_layer_config = None

    def build(self: Any, config: Any, **kwargs: Any) -> None:
        # The dense model is built first, which has no numbers of its own for each layer.
        config = copy.copy(config)
        config.per_layer_config = None
        shapes = getattr(config, KEY)
        if has_pooler:
            kwargs.setdefault("add_pooling_layer", shapes.get("pooler", False))
        with one_head(config) if shapes.get("one_head") else contextlib.nullcontext():
            base.__init__(self, config, **kwargs)
        reshape(self.base_model, shapes)

    members = {"__init__": build, "save_pretrained": save_pretrained, "__module__": base.__module__}
    return type(base.__name__, (base,), members)


@contextlib.contextmanager
def one_head(config: Any) -> Any:
    """Let a configuration have one head: hidden dimensions were cut to no multiple of all heads.

    The dense model would refuse them. What heads are is said of each attention.
    """
    heads, config.num_attention_heads = config.num_attention_heads, 1
    try:
        yield
    finally:
        config.num_attention_heads = heads


def _write_code(config: Any, folder: Path) -> None:
    """Put this file where a model is saved again, and let its configuration name that copy."""
    folder.mkdir(parents=True, exist_ok=True)
    code = Path(__file__)
    if not (folder / code.name).exists() or not code.samefile(folder / code.name):
        shutil.copyfile(code, folder / code.name)
    # What came from the hub is named with its repository before two dashes.
    own = {auto: name.split("--")[-1] for auto, name in getattr(config, "auto_map", {}).items()}
    config.auto_map = own


def _linear(encoder: nn.Module, path: str) -> nn.Linear:
    try:
        found = encoder.get_submodule(path)
    except AttributeError:
        raise ValueError(f"{path} must be a linear layer, but there is none.") from None
    if not isinstance(found, nn.Linear):
        raise ValueError(f"{path} must be a linear layer, but is {type(found).__name__}.")
    return found


def _attach(root: nn.Module, path: str, module: nn.Module) -> None:
    *names, last = path.split(".")
    for name in names:
        if not hasattr(root, name):
            root.add_module(name, nn.Module())
        root = getattr(root, name)
    root.add_module(last, module)


def _like(old: nn.Linear, inputs: int, outputs: int, *, bias: bool) -> nn.Linear:
    weight = old.weight
    with warnings.catch_warnings():
        # A feed-forward network that is gone has no neurons, and nothing to be initialized.
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return nn.Linear(inputs, outputs, bias=bias, device=weight.device, dtype=weight.dtype)


def _replace(encoder: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    encoder.get_submodule(parent).add_module(name, module)
