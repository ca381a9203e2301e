"""The model card of an exported folder: how to load it, its tasks, scores and ledger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from multiprune.export.checkpoint import OVER_VOCABULARY
from multiprune.export.classifier import ShippedClassifier, usable_positions
from multiprune.models.encoder import Encoder, has_pooler

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from multiprune.export.loading import ShippedModel

_CUT = """\
Some layers are smaller than in the dense architecture. `modeling_multiprune.py` in this folder
builds them, with `torch` and `transformers` and nothing else; `trust_remote_code=True` says that it
may run."""

_DENSE = "All layers have their dense shapes; plain `transformers` loads the {kind}."

_PLAIN = """\
```python
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

folder = Path(".")  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
encoder = AutoModel.from_pretrained(folder{options}).eval()
heads = load_file(folder / "heads.safetensors")
tasks = json.loads((folder / "heads.json").read_text())


@torch.no_grad()
def logits(task, texts, pairs=None):
    kind = tasks[task]["kind"]  # of tags, texts are lists of words; first tokens answer
    inputs = tokenizer(
        texts,
        pairs,
        is_split_into_words=kind == "tags",
        truncation=True,
        max_length={max_length},
        padding=True,
        return_tensors="pt",
    )
    states = encoder(**inputs).last_hidden_state
    if kind not in ("tags", "span"):  # the mean over the tokens that are not padding
        mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        states = (states * mask).sum(1) / mask.sum(1)
    weight, bias = heads[task + ".output.weight"], heads[task + ".output.bias"]
    return torch.nn.functional.linear(states, weight, bias)
```
"""

_PLAIN_MASKED = """\
Of {tasks}, the head is on the encoder's own embeddings of words:

```python
@torch.no_grad()
def masked_logits(task, texts):  # of all tokens of the vocabulary, at each token
    inputs = tokenizer(
        texts, truncation=True, max_length={max_length}, padding=True, return_tensors="pt"
    )
    of = {{key.removeprefix(task + "."): value for key, value in heads.items()}}
    states = encoder(**inputs).last_hidden_state
    states = torch.nn.functional.linear(states, of["dense.weight"], of["dense.bias"])
    states = torch.nn.functional.gelu(states)
    size = (states.shape[-1],)
    states = torch.nn.functional.layer_norm(states, size, of["norm.weight"], of["norm.bias"], 1e-12)
    return torch.nn.functional.linear(states, encoder.get_input_embeddings().weight, of["bias"])
```
"""

_PLAIN_CLASSIFIER = """\
```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder{options}).eval()


@torch.no_grad()
def logits(texts, pairs=None):
    inputs = tokenizer(
        texts, pairs, truncation=True, max_length={max_length}, padding=True, return_tensors="pt"
    )
    return model(**inputs).logits
```
"""

_PLAIN_TEXT_TO_TEXT = """\
```python
import json
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

folder = Path(".")  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSeq2SeqLM.from_pretrained(folder{options}).eval()
tasks = json.loads((folder / "heads.json").read_text())


@torch.no_grad()
def logits(task, texts, pairs=None):  # log-probabilities of each label's words
    columns, template = tasks[task]["text"], tasks[task]["template"]
    rows = zip(texts) if pairs is None else zip(texts, pairs)
    filled = [template.format_map(dict(zip(columns, row))) for row in rows]
    inputs = tokenizer(
        filled, truncation=True, max_length={max_length}, padding=True, return_tensors="pt"
    )
    found = []
    for words in tasks[task]["words"]:
        target = tokenizer(words, return_tensors="pt").input_ids.repeat(len(filled), 1)
        scores = model(**inputs, labels=target).logits.log_softmax(-1)
        found.append(scores.gather(-1, target[:, :, None]).sum((1, 2)))
    return torch.stack(found, 1)
```
"""

_BITMASK = """\
Zeros are not stored: `multiprune.load` restores the dense tensors bit for bit, plain
`transformers` does not know the format.
"""

_PACKED = """\
Several models share one set of weights: a mask says which of them a task has, and only its own head
is its own besides. `multiprune.load` gives the encoder the weights of the task that is asked for;
plain `transformers` does not know the format.
"""

_ONNX = """\
`onnxruntime` runs the model: inputs are what the tokenizer gives, outputs are logits by task.
"""

_SIZES = """\
Density is what a task has of the weights of linear layers.
"""

_OURS = """\
With multiprune, which runs no code from this folder:

```python
import multiprune

model = multiprune.load(".")
logits = model.logits(task, texts)
```
"""


def write_card(folder: Path, model: ShippedModel, results: Path | None) -> None:
    """Write ``README.md`` into a folder that ``model`` was exported to.

    ``results`` are the run's, with scores and ledger of this model, if there is such a file.
    """
    kind = "text-to-text model" if model.encoder.config.is_encoder_decoder else "text encoder"
    kind = "text classifier" if isinstance(model, ShippedClassifier) else kind
    parts = [f"# A pruned {kind}\n", *_how_to_load(folder, model), *_tasks(model.meaning)]
    if results is not None and results.is_file():
        parts += _results(json.loads(results.read_text()), model)
    (folder / "README.md").write_text("\n".join(parts))


def write_packed_card(folder: Path, meaning: Mapping[str, Mapping[str, Any]], sizes: str) -> None:
    """Write ``README.md`` into a folder of models that share weights; ``sizes`` are tables."""
    parts = ["# Pruned text encoders\n", _PACKED, _OURS, *_tasks(meaning), "## Sizes\n", _SIZES]
    (folder / "README.md").write_text("\n".join([*parts, sizes]))


def _how_to_load(folder: Path, model: ShippedModel) -> list[str]:
    cut = (folder / "modeling_multiprune.py").is_file()
    if isinstance(model, ShippedClassifier):
        length = usable_positions(model.classifier, model.tokenizer)
        options = ", trust_remote_code=True" if cut else ""
        plain = _PLAIN_CLASSIFIER.format(options=options, max_length=length)
        return [_CUT if cut else _DENSE.format(kind="classifier"), "", plain]
    if any(folder.glob("*.onnx")):
        return [_ONNX]
    if not (folder / "model.safetensors").is_file():
        return [_BITMASK, _OURS]
    options = ", trust_remote_code=True" if cut else ""
    # Without a pooler in the file, the library would add one with random weights, and say so.
    if has_pooler(model.encoder.config) and getattr(model.encoder, "pooler", None) is None:
        options += ", add_pooling_layer=False"
    length = Encoder(model.encoder, model.tokenizer).max_length
    is_encoder_decoder = model.encoder.config.is_encoder_decoder
    plain = _PLAIN_TEXT_TO_TEXT if is_encoder_decoder else _PLAIN
    plain = plain.format(options=options, max_length=length)
    dense = _DENSE.format(kind="model" if is_encoder_decoder else "encoder")
    masked = [task for task, one in model.meaning.items() if one["kind"] == OVER_VOCABULARY]
    more = [_PLAIN_MASKED.format(tasks=", ".join(masked), max_length=length)] if masked else []
    return [_CUT if cut else dense, "", plain, *more, _OURS]


def _tasks(meaning: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        [task, one["kind"], one.get("template") or ", ".join(one.get("text", [])), _outputs(one)]
        for task, one in meaning.items()
    ]
    return ["## Tasks\n", table(["task", "kind", "reads", "outputs"], rows)]


def _outputs(one: Mapping[str, Any]) -> str:
    if "bounds" in one:
        low, high = one["bounds"]
        return f"a number, -1 for {low} and 1 for {high}"
    if one["kind"] == "span":
        return "scores of each token as the start and as the end of the answer"
    if one["kind"] == OVER_VOCABULARY:
        return "scores of all tokens of the vocabulary, by the embeddings, at each token"
    return ", ".join(map(str, one.get("words") or one.get("labels", [])))


def _results(results: Mapping[str, Any], model: ShippedModel) -> list[str]:
    budget = results["budget"]
    tasks = [
        [task, metric, f"{value:.4f}"]
        for task, metrics in results["validation"].items()
        for metric, value in metrics.items()
    ]
    ledger = [[row["part"], f"{row['dense']:,}", f"{row['kept']:,}"] for row in results["ledger"]]
    dtype = str(model.encoder.dtype).removeprefix("torch.")
    scores = [
        "## Scores on validation data\n",
        f"Measured when the model was made; the weights here are {dtype}.\n",
        table(["task", "metric", "score"], tasks),
    ]
    return [
        *(scores if tasks else []),
        *(_training(results) if "steps" in results else []),  # specialists are not trained
        "## Parameters\n",
        f"Asked for {budget['asked']:,} and kept {budget['kept']:,} of {budget['dense']:,} "
        f"({budget['of']}).\n",
        table(["part", "dense", "kept"], ledger),
    ]


def _training(results: Mapping[str, Any]) -> list[str]:
    examples = ", ".join(f"{task} {count:,}" for task, count in results["examples"].items())
    return [
        "## Training\n",
        f"{results['steps']:,} steps of the optimizer with seed {results['seed']}, on examples of "
        f"{examples}.\n",
    ]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
