"""The dense reference model of the same configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from multiprune.models.encoder import encoder_class, has_pooler
from multiprune.models.modeling_multiprune import KEY

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

#: Entries of a configuration that describe a pruned model or its folder, not the dense model.
_OF_THE_FOLDER = (
    KEY,
    "per_layer_config",
    "auto_map",
    "architectures",
    "_name_or_path",
    "transformers_version",
)


@dataclass(frozen=True)
class Blueprint:
    """All that a model's speed and memory depend on; the values of its weights are not."""

    config: PretrainedConfig
    pooler: bool
    dtype: torch.dtype

    @classmethod
    def of(cls, encoder: PreTrainedModel) -> Blueprint:
        """Describe an encoder by its configuration: as it was loaded."""
        pooler = getattr(encoder, "pooler", None) is not None
        return cls(encoder.config, pooler, encoder.dtype)

    def dense(self) -> Blueprint:
        """Return the blueprint without pruned shapes; equal for all models pruned from one."""
        content = self.config.to_dict()
        kept = {key: value for key, value in content.items() if key not in _OF_THE_FOLDER}
        return Blueprint(type(self.config).from_dict(kept), self.pooler, self.dtype)

    def build(self) -> PreTrainedModel:
        """Build the encoder with random weights, in evaluation mode."""
        built = self.untouched()
        built.to(self.dtype)
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.normal_(std=0.02, generator=draw)
        encoder: PreTrainedModel = built.eval()  # type: ignore[assignment]
        return encoder

    def untouched(self) -> nn.Module:
        """Build the encoder with whatever its memory holds."""
        from transformers.initialization import no_init_weights

        options = {"add_pooling_layer": self.pooler} if has_pooler(self.config) else {}
        # Memory of a dense layer that gives way to a smaller one must not have been touched.
        with no_init_weights():
            built: nn.Module = encoder_class(self.config)(self.config, **options)
        return built


def dense_of(encoder: PreTrainedModel) -> PreTrainedModel:
    """Build the dense model of an encoder's configuration, with random weights."""
    return Blueprint.of(encoder).dense().build()
