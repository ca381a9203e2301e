"""Folders of encoders and of exported models that are malformed, and what is said about each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Spoil = Callable[[Path], object]


def without(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def holding(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str, size: int) -> Spoil:
    """Leave ``size`` bytes of a file, and nothing that says so."""

    def spoil(folder: Path) -> None:
        (folder / "sha256.json").unlink(missing_ok=True)
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return spoil


def changed(name: str, **entries: Any) -> Spoil:
    """Set entries of a JSON file."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | entries))

    return spoil


def reshaped(name: str, *, drop: bool = False) -> Spoil:
    """Leave a row of the first matrix out, or all of it."""

    def spoil(folder: Path) -> None:
        (folder / "sha256.json").unlink(missing_ok=True)
        weights = load_file(folder / name)
        first = next(path for path in sorted(weights) if weights[path].dim() == 2)
        if drop:
            del weights[first]
        else:
            weights[first] = weights[first][1:].clone()
        save_file(weights, folder / name, {"format": "pt"})

    return spoil


def other_types(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "sha256.json").unlink(missing_ok=True)
        weights = load_file(folder / name)
        save_file({path: torch.zeros(()) for path in weights}, folder / name, {"format": "pt"})

    return spoil


def flipped(name: str) -> Spoil:
    """Change a byte in the middle."""

    def spoil(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (folder / name).write_bytes(content)

    return spoil


WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
MASKED = "model.bitmask.safetensors"
LENGTH = b"\xff" * 8

#: What happens to the folder of an encoder.
ENCODERS: dict[str, tuple[Spoil, str]] = {
    "no config": (without(CONFIG), "config.json does not exist"),
    "broken config": (holding(CONFIG, b"{"), CONFIG),
    "config of a list": (holding(CONFIG, b"[1]"), "Unrecognized model in "),
    "empty config": (holding(CONFIG, b"{}"), "Unrecognized model in "),
    "binary config": (holding(CONFIG, b"\xff\xfe"), CONFIG),
    "unknown architecture": (changed(CONFIG, model_type="nothing"), "nothing"),
    "a decoder": (changed(CONFIG, model_type="gpt2"), "is a gpt2, which has a decoder only"),
    "an image model": (changed(CONFIG, model_type="vit"), "encoder"),
    "text for a size": (changed(CONFIG, hidden_size="x"), "hidden_size"),
    "negative size": (changed(CONFIG, hidden_size=-16), "encoder cannot be loaded"),
    "null size": (changed(CONFIG, num_hidden_layers=None), "num_hidden_layers"),
    "more layers": (changed(CONFIG, num_hidden_layers=3), "do not match its config.json"),
    "heads that do not divide": (changed(CONFIG, num_attention_heads=3), "encoder cannot be built"),
    "wider": (changed(CONFIG, hidden_size=32), "do not match its config.json"),
    "no weights": (without(WEIGHTS), "`encoder.path`"),
    "empty weights": (cut(WEIGHTS, 0), "`encoder.path`"),
    "truncated weights": (cut(WEIGHTS, 1000), "`encoder.path`"),
    "header without end": (holding(WEIGHTS, LENGTH), "`encoder.path`"),
    "one row less": (reshaped(WEIGHTS), "have another shape"),
    "a matrix less": (reshaped(WEIGHTS, drop=True), "are missing"),
    "numbers for matrices": (other_types(WEIGHTS), "have another shape"),
    "no tokenizer": (without(TOKENIZER), "holds no vocabulary"),
    "broken tokenizer": (holding(TOKENIZER, b"{"), "The tokenizer in "),
    "empty tokenizer": (holding(TOKENIZER, b"{}"), "The tokenizer in "),
    "broken tokenizer settings": (holding("tokenizer_config.json", b"{"), "The tokenizer in "),
}

#: What happens to an exported folder, whose zeros are stored or not.
EXPORTS: dict[str, tuple[str, Spoil, str]] = {
    "no config": ("dense", without(CONFIG), "it has no config.json"),
    "no heads.json": ("dense", without("heads.json"), "heads.json"),
    "broken config": ("dense", holding(CONFIG, b"{"), CONFIG),
    "another architecture": ("dense", changed(CONFIG, model_type="electra"), "model.safetensors"),
    "unknown architecture": ("dense", changed(CONFIG, model_type="nothing"), CONFIG),
    "more layers": ("dense", changed(CONFIG, num_hidden_layers=9), "config.json ask for"),
    "millions of layers": ("dense", changed(CONFIG, num_hidden_layers=10**7), CONFIG),
    "text for a size": ("dense", changed(CONFIG, hidden_size="x"), CONFIG),
    "shapes that are none": ("dense", changed(CONFIG, multiprune=5), CONFIG),
    "shapes of no layer": (
        "dense",
        changed(CONFIG, multiprune={"linear": {"nowhere": [1, 1]}}),
        CONFIG,
    ),
    "wrong digest": ("dense", flipped(WEIGHTS), "its SHA-256 is not the one"),
    "broken digests": ("dense", holding("sha256.json", b"{"), "sha256.json"),
    "digests of a list": ("dense", holding("sha256.json", b"[]"), "sha256.json"),
    "truncated weights": ("dense", cut(WEIGHTS, 1000), WEIGHTS),
    "one row less": ("dense", reshaped(WEIGHTS), "must hold the shapes that config.json"),
    "no weights": ("dense", without(WEIGHTS), "has no model.safetensors"),
    "no head weights": ("dense", without("heads.safetensors"), "has no heads.safetensors"),
    "broken heads.json": ("dense", holding("heads.json", b"{"), "heads.json"),
    "heads.json of a list": ("dense", holding("heads.json", b"[]"), "heads.json"),
    "a task of nothing": ("dense", holding("heads.json", b'{"a": {}}'), "heads.json"),
    "a task of text": ("dense", holding("heads.json", b'{"a": "b"}'), "heads.json"),
    "a task without a head": (
        "dense",
        holding("heads.json", b'{"nobody": {"kind": "classes", "labels": ["no", "yes"]}}'),
        "has no head for nobody",
    ),
    "no tokenizer": ("dense", without(TOKENIZER), TOKENIZER),
    "broken tokenizer": ("dense", holding(TOKENIZER, b"{"), "cannot be loaded"),
    "truncated masks": ("bitmask", cut(MASKED, 2000), MASKED),
    "no masks": ("bitmask", without(MASKED), "has no model.safetensors"),
    "flipped masks": ("bitmask", flipped(MASKED), MASKED),
    "weights for masks": (
        "bitmask",
        lambda folder: save_file({"a": torch.zeros(1)}, folder / MASKED),
        MASKED,
    ),
}
