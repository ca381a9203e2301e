"""The model card of an exported folder: how to load it, its tasks, scores and ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multiprune.export import card_text as text
from multiprune.export.classifier import ShippedClassifier, usable_positions
from multiprune.models.encoder import has_pooler
from multiprune.tasks.outputs.described import output_from
from multiprune.tasks.words import needs_spaces

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from multiprune.export.shipped import ShippedModel
    from multiprune.runs.budget_outcome import BudgetOutcome, LedgerRow
    from multiprune.runs.record import RunRecord, Scores


@dataclass(frozen=True)
class Measured:
    """What was measured when a model was made: its scores on validation data, and its size.

    ``training`` says in a sentence how it was trained; it is empty for a model that was not.
    """

    validation: Scores
    budget: BudgetOutcome
    ledger: Sequence[LedgerRow]
    training: str = ""

    @classmethod
    def from_record(cls, record: RunRecord) -> Measured:
        """Return what a run has measured."""
        examples = ", ".join(f"{task} {count:,}" for task, count in record.examples.items())
        training = (
            f"{record.steps:,} steps of the optimizer with seed {record.seed}, on examples of "
            f"{examples}.\n"
        )
        return cls(record.validation, record.budget, record.ledger, training)


def write_card(folder: Path, model: ShippedModel, measured: Measured | None) -> None:
    """Write ``README.md`` into a folder that ``model`` was exported to.

    ``measured`` is what is known of this model.
    """
    kind = "text-to-text model" if model.encoder.config.is_encoder_decoder else "text encoder"
    kind = "text classifier" if isinstance(model, ShippedClassifier) else kind
    parts = [f"# A pruned {kind}\n", *_how_to_load(folder, model), *_tasks(model.meaning)]
    if measured is not None:
        parts += _results(measured, model)
    (folder / "README.md").write_text("\n".join(parts))


def write_packed_card(folder: Path, meaning: Mapping[str, Mapping[str, Any]], sizes: str) -> None:
    """Write ``README.md`` into a folder of models that share weights; ``sizes`` are tables."""
    parts = [
        "# Pruned text encoders\n",
        text.PACKED,
        *_ours(meaning),
        *_tasks(meaning),
        "## Sizes\n",
        text.SIZES,
    ]
    (folder / "README.md").write_text("\n".join([*parts, sizes]))


def _how_to_load(folder: Path, model: ShippedModel) -> list[str]:
    cut = (folder / "modeling_multiprune.py").is_file()
    if isinstance(model, ShippedClassifier):
        length = usable_positions(model.classifier, model.tokenizer)
        options = ", trust_remote_code=True" if cut else ""
        given = _given(next(iter(model.meaning.values())))
        plain = text.PLAIN_CLASSIFIER.format(options=options, max_length=length, given=given)
        return [text.CUT if cut else text.DENSE.format(kind="classifier"), "", plain]
    if any(folder.glob("*.onnx")):
        return [text.ONNX.format(read=_read(model, "np"), example=_example(model.meaning))]
    ours = _ours(model.meaning)
    if not (folder / "model.safetensors").is_file():
        return [text.BITMASK, *ours]
    options = ", trust_remote_code=True" if cut else ""
    # Without a pooler in the file, the library would add one with random weights, and say so.
    if has_pooler(model.encoder.config) and getattr(model.encoder, "pooler", None) is None:
        options += ", add_pooling_layer=False"
    length = max(map(model.max_length, model.meaning))
    is_encoder_decoder = model.encoder.config.is_encoder_decoder
    example = _example(model.meaning)
    if is_encoder_decoder:
        plain = text.PLAIN_TEXT_TO_TEXT.format(options=options, max_length=length, example=example)
    else:
        logits = _read(model, "pt") + text.PLAIN_LOGITS if example else ""
        plain = text.PLAIN.format(options=options, logits=logits, example=example)
    dense = text.DENSE.format(kind="model" if is_encoder_decoder else "encoder")
    return [text.CUT if cut else dense, "", plain, *_other_heads(model.meaning, length), *ours]


def _read(model: ShippedModel, tensors: str) -> str:
    has_words = any(output_from(one).reads_words for one in model.meaning.values())
    spaced = text.SPACED if has_words and needs_spaces(model.tokenizer) else ""
    return text.READ.format(spaced=spaced, tensors=tensors)


def _example(meaning: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how the logits of the first task that has some are turned into its answer."""
    for task, one in meaning.items():
        if example := output_from(one).card_example:
            return example.format(task=task, given=_given(one))
    return ""


def _other_heads(meaning: Mapping[str, Mapping[str, Any]], length: int) -> list[str]:
    """Return how the logits of heads are computed that are not one linear layer."""
    tasks: dict[str, list[str]] = {}
    for task, one in meaning.items():
        tasks.setdefault(output_from(one).card_head, []).append(task)
    return [
        code.format(tasks=", ".join(those), max_length=length)
        for code, those in tasks.items()
        if code
    ]


def _ours(meaning: Mapping[str, Mapping[str, Any]]) -> list[str]:
    for task, one in meaning.items():
        if not output_from(one).over_vocabulary:
            return [text.OURS.format(task=task, given=_given(one))]
    return []


def _given(one: Mapping[str, Any]) -> str:
    return ", ".join(f'["{example}"]' for example in text.GIVEN[: len(one["text"])])


def _tasks(meaning: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        [
            *(task, one["kind"], one.get("template") or ", ".join(one.get("text", []))),
            output_from(one).meaning,
        ]
        for task, one in meaning.items()
    ]
    return ["## Tasks\n", table(["task", "kind", "reads", "outputs"], rows)]


def _results(measured: Measured, model: ShippedModel) -> list[str]:
    tasks = [
        [task, metric, f"{value:.4f}"]
        for task, metrics in measured.validation.items()
        for metric, value in metrics.items()
    ]
    ledger = [[row.part, f"{row.dense:,}", f"{row.kept:,}"] for row in measured.ledger]
    dtype = str(model.encoder.dtype).removeprefix("torch.")
    scores = [
        "## Scores on validation data\n",
        f"Measured when the model was made; the weights here are {dtype}.\n",
        table(["task", "metric", "score"], tasks),
    ]
    return [
        *(scores if tasks else []),
        *(["## Training\n", measured.training] if measured.training else []),
        "## Parameters\n",
        f"{measured.budget}\n",
        table(["part", "dense", "kept"], ledger),
    ]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
