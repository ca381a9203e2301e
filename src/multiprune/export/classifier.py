"""Load, prune and save sequence classifiers of transformers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from typing_extensions import override

from multiprune.export.checkpoint import write_config
from multiprune.export.shipped import ShippedModel
from multiprune.models.architectures import ARCHITECTURES
from multiprune.models.encoder import Encoder
from multiprune.models.matching_weights import check_report, is_of_encoder, load_reported
from multiprune.models.modeling_multiprune import (
    KEY,
    pruned_class,
)
from multiprune.models.pretrained_tokenizer import ensure_padding, pretrained_tokenizer
from multiprune.models.task_heads import TaskHeads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


class ShippedClassifier(ShippedModel):
    """A classifier of transformers, which answers one task with the head that it came with.

    Args:
        classifier: its base model is the encoder.
        task: by what name the task goes.
        meaning: what its outputs mean.
        tokenizer: that of the encoder.
    """

    def __init__(
        self,
        classifier: PreTrainedModel,
        task: str,
        meaning: Mapping[str, Any],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        super().__init__(encoder_of(classifier), TaskHeads(), {task: meaning}, tokenizer)
        self.classifier: PreTrainedModel = classifier

    @override
    def forward(
        self, task: str, inputs: Mapping[str, Tensor], labels: Tensor | None = None
    ) -> Tensor:
        self.check_task(task)
        logits: Tensor = self.classifier(**inputs).logits
        return logits

    @override
    def logits_by_task(
        self, tasks: Sequence[str], inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        return {task: self(task, inputs) for task in tasks}

    @override
    def check_task(self, task: str) -> None:
        if task not in self.meaning:
            raise ValueError(f"The task must be {next(iter(self.meaning))!r}, but is {task!r}.")

    @override
    def only(self, task: str) -> ShippedModel:
        self.check_task(task)
        return copy.deepcopy(self, {id(self.tokenizer): self.tokenizer}).eval()

    @override
    def save(self, folder: Path) -> None:
        """Write the model into a folder that exists.

        It loads by ``AutoModelForSequenceClassification``, one that was cut with
        ``trust_remote_code=True``.
        """
        self.classifier.save_pretrained(folder, save_original_format=False)
        write_config(folder, self.classifier, self.encoder)
        self.tokenizer.save_pretrained(folder)


def load_classifier(path: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a classifier by its name on the hub, or from a folder; no code from it is run.

    Raises:
        FileNotFoundError: if ``path`` looks like a folder and there is none, or no model in it.
        ValueError: if the hub has no such model, its heads and neurons are not known, or it does
            not choose one of several classes with weights of its own.
    """
    from transformers import AutoConfig

    folder = Path(path).expanduser()
    looks_local = path.startswith((".", "/", "~")) or folder.is_dir()
    if looks_local and not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"`--model` must be a folder with a model in it, but {folder}/config.json does not "
            "exist."
        )
    source = str(folder) if looks_local else path
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        _check_kind(config, path)
        model = _loaded(source, config)
        tokenizer = pretrained_tokenizer(source)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"`--model` must be a folder or a model of the Hugging Face hub that can be reached, "
            f"but {path!r} is not: {str(error).splitlines()[0]}"
        ) from error
    ensure_padding(tokenizer, path)
    if not tokenizer.is_fast:
        raise ValueError(f"`--model` {path!r} has no fast tokenizer.")
    return model.eval(), tokenizer  # type: ignore[no-untyped-call]


def encoder_of(classifier: PreTrainedModel) -> PreTrainedModel:
    """Return the encoder of a classifier."""
    encoder: Any = classifier.base_model
    return encoder  # type: ignore[no-any-return]


def class_names(classifier: PreTrainedModel) -> list[str]:
    """Return what a classifier calls its classes, by number."""
    names: Mapping[int, str] = classifier.config.id2label  # type: ignore[assignment]
    return [names[number] for number in range(len(names))]


def usable_positions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many tokens a classifier reads at most."""
    return Encoder(model=model, tokenizer=tokenizer).max_length


def _check_kind(config: PretrainedConfig, path: str) -> None:
    if config.model_type not in ARCHITECTURES or config.is_encoder_decoder:
        known = [name for name in ARCHITECTURES if name not in ("t5", "mt5")]
        raise ValueError(
            f"`--model` must be an encoder whose heads and neurons are known, one of "
            f"{', '.join(known)}, but {path!r} is a {config.model_type}."
        )
    several = config.problem_type in (None, "single_label_classification")
    if not several or len(config.id2label or {}) < 2:
        raise ValueError(
            f"`--model` must choose one of two or more classes, but {path!r} has "
            f"{config.num_labels} output(s) for {config.problem_type or 'regression'}."
        )


def _loaded(source: str, config: PretrainedConfig) -> PreTrainedModel:
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    if hasattr(config, KEY):
        kind = pruned_class(config, kind)
    model, report = load_reported(kind, source, config=config)
    missing = sorted(report["missing_keys"])
    if missing and not any(is_of_encoder(key, model) for key in missing):
        raise ValueError(
            f"`--model` must have a classification head that was trained, but {source!r} holds no "
            f"{', '.join(missing)}."
        )
    check_report(model, report, source)
    return model
