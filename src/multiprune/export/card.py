"""The model card of an exported folder: scores, ledger, and how to load it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LOAD_CUT = """\
Some layers are smaller than in the dense architecture. `modeling_multiprune.py` in this folder
builds them; it needs nothing but `torch` and `transformers`:

```python
encoder = AutoModel.from_pretrained(FOLDER, trust_remote_code=True)
```
"""

_LOAD_DENSE = """\
All layers have their dense shapes; plain `transformers` loads the encoder:

```python
encoder = AutoModel.from_pretrained(FOLDER)
```
"""

_LOAD_BITMASK = """\
Zeros are not stored: `multiprune.load` restores the dense tensors bit for bit, plain
`transformers` does not know the format.
"""

_LOAD_ONNX = """\
`onnxruntime` runs the model: inputs are what the tokenizer gives, outputs are logits by task.
"""

_LOAD_OURS = """\
With multiprune, encoder, heads and tokenizer at once:

```python
model = multiprune.load(FOLDER)
logits = model.logits(TASK, texts)
```
"""


def write_card(folder: Path, source: Path) -> None:
    """Write ``README.md`` into an exported folder; ``source`` is the run, if it was one."""
    parts = ["# A pruned text encoder\n", *_how_to_load(folder)]
    results = source / "results.json"
    if results.is_file():
        parts += _results(json.loads(results.read_text()))
    (folder / "README.md").write_text("\n".join(parts))


def _how_to_load(folder: Path) -> list[str]:
    if any(folder.glob("*.onnx")):
        return [_LOAD_ONNX]
    if (folder / "modeling_multiprune.py").is_file() and (folder / "model.safetensors").is_file():
        return [_LOAD_CUT, _LOAD_OURS]
    return [
        _LOAD_DENSE if (folder / "model.safetensors").is_file() else _LOAD_BITMASK,
        _LOAD_OURS,
    ]


def _results(results: Mapping[str, Any]) -> list[str]:
    budget = results["budget"]
    tasks = [
        [task, metric, f"{value:.4f}"]
        for task, metrics in results["validation"].items()
        for metric, value in metrics.items()
    ]
    ledger = [[row["part"], f"{row['dense']:,}", f"{row['kept']:,}"] for row in results["ledger"]]
    return [
        "## Scores on validation data\n",
        _table(["task", "metric", "score"], tasks),
        "## Parameters\n",
        f"Asked for {budget['asked']:,} and kept {budget['kept']:,} of {budget['dense']:,} "
        f"({budget['of']}).\n",
        _table(["part", "dense", "kept"], ledger),
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
