"""Retrieval scores of a run's final encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from typing_extensions import override

from multiprune.models.hidden_states import recorded_states
from multiprune.models.structure import architecture_of, layer_paths
from multiprune.tasks.outputs.heads import mean_of_tokens
from multiprune.tasks.retrieval import EncodedRows
from multiprune.training.module import MultitaskModule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from multiprune.models.encoder import Encoder
    from multiprune.tasks.retrieval import Retrieval
    from multiprune.tasks.rows import Rows

_BATCH_SIZE = 64


class Retrieve(pl.Callback):
    """Logs ``test/<name>/accuracy`` (or ``f1``) and that of each language, after a whole run.

    It is no part of any mean over tasks.
    """

    def __init__(
        self,
        retrievals: Mapping[str, Retrieval],
        encoder: Encoder,
        *,
        mirror: Path | None,
        max_length: int,
    ) -> None:
        self.retrievals, self.max_length = dict(retrievals), max_length
        self.tokenizer = encoder.tokenizer
        self.rows = {
            name: _checked(name, one, encoder, mirror) for name, one in self.retrievals.items()
        }

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        assert isinstance(pl_module, MultitaskModule)
        encoder = pl_module.model.encoder
        for name, one in self.retrievals.items():
            encoded = {
                split: self._encoded(one, rows, encoder) for split, rows in self.rows[name].items()
            }
            scores = one.scores(encoded)
            pl_module.log_dict(
                {f"test/{name}/{metric}": value for metric, value in scores.items()},
                sync_dist=trainer.world_size > 1,
            )

    def _encoded(self, one: Retrieval, rows: Rows, encoder: PreTrainedModel) -> EncodedRows:
        """Compute the vectors of all sentences that are there."""
        columns = []
        for name in one.text:
            texts = one.column(rows, name)
            present = [row for row, text in enumerate(texts) if text]
            sentences = [texts[row] for row in present]
            vectors = sentence_vectors(
                encoder, self.tokenizer, sentences, one.layer, self.max_length
            )
            columns.append(vectors.new_zeros(len(texts), vectors.shape[1]))
            columns[-1][present] = vectors
        return EncodedRows(rows, *columns)


@torch.no_grad()
def sentence_vectors(
    encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[str],
    layer: int | None,
    max_length: int,
) -> Tensor:
    """Return the mean of the hidden states of each sentence's tokens, shape (sentences, hidden).

    They are those behind ``layer``, from 1; None is the last.
    """
    # Those of similar length together.
    order = sorted(range(len(sentences)), key=lambda place: len(sentences[place]))
    vectors = []
    for first in range(0, len(order), _BATCH_SIZE):
        inputs = tokenizer(
            [sentences[place] for place in order[first : first + _BATCH_SIZE]],
            truncation=True,
            max_length=max_length,
            padding=True,
            return_tensors="pt",
        ).to(encoder.device)
        if layer is None:
            states = encoder(**inputs).last_hidden_state
        else:
            with recorded_states(encoder) as recorded:
                encoder(**inputs)
            states = recorded[layer - 1].states
        vectors.append(mean_of_tokens(states, inputs["attention_mask"]).float())
    return torch.cat(vectors)[torch.tensor(order, device=encoder.device).argsort()]


def _checked(name: str, one: Retrieval, encoder: Encoder, mirror: Path | None) -> dict[str, Rows]:
    """Return the splits of a retrieval, which must be what this encoder can read."""
    if encoder.is_text_to_text:
        raise ValueError(f"Retrieval ({name}) needs an encoder, but this model has a decoder.")
    if one.layer is not None:
        model = encoder.model
        depth = len(layer_paths(model, architecture_of(model)))
        if one.layer > depth:
            raise ValueError(
                f"`layer` of {name} must be one of the encoder's {depth}, but is {one.layer}."
            )
    splits = {}
    for split in one.splits:
        rows = one.source.load(split, mirror=mirror, columns=one.columns)
        if rows is None:
            raise ValueError(f"{name} has no {split} split for retrieval.")
        one.check_rows(rows)
        splits[split] = rows
    return splits
