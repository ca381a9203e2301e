"""Masks come back from as few bytes as deflate makes of them, and from the runs of old."""

from __future__ import annotations

import json
import random
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from multiprune.runs.masks import (
    FILE,
    HEADER,
    Mask,
    read_mask_file,
    read_masks,
    write_mask_file,
    write_masks,
)

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

SIZE = 20_000
WEIGHT, NEURONS = "encoder.layer.0.query.weight", "encoder.layer.0.neurons"

#: What a run left before masks were deflated and had a version.
OLDER = (
    b'\x08\x01\x00\x00\x00\x00\x00\x00{"__metadata__":{"shapes":"{'
    b'\\"encoder.layer.0.query.weight\\": [3, 5], \\"encoder.layer.0.neurons\\": [9]}"},'
    b'"encoder.layer.0.neurons":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},'
    b'"encoder.layer.0.query.weight":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}'
    b"     \x9a\x80DD"
)
KEPT = {
    WEIGHT: [[0, 1, 0, 0, 0], [1, 0, 0, 0, 1], [0, 0, 0, 1, 0]],
    NEURONS: [1, 0, 0, 1, 1, 0, 1, 0, 1],
}


def random_mask(size: int, density: float, seed: int = 0) -> NDArray[np.bool_]:
    kept: NDArray[np.bool_] = np.random.default_rng(seed).random(size) < density
    return kept


def refused(written: bytes, size: int = SIZE) -> str:
    with pytest.raises(ValueError, match=r"^(zlib says|it is)") as raised:
        Mask.inflated(written, [size])
    return str(raised.value)


@pytest.mark.parametrize("density", [0.0, 0.001, 0.02, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (9,), (16, 4096), (65_537,), (3, 5, 11)])
def test_masks_come_back(density: float, shape: tuple[int, ...]) -> None:
    kept = random_mask(int(np.prod(shape)), density).reshape(shape)
    mask = Mask.inflated(Mask.of(kept).deflated(), shape)
    assert np.array_equal(mask.unpacked(), kept)
    assert (mask.size, mask.shape) == (kept.size, shape)


def test_bits_are_packed_with_the_first_one_lowest() -> None:
    kept = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 0, 1]], np.bool_)
    assert Mask.of(kept).bits.tolist() == [0b101, 0b10]
    assert zlib.decompress(Mask.of(kept).deflated()) == bytes([0b101, 0b10])


@pytest.mark.parametrize("density", [0.02, 0.1, 0.5, 0.97])
def test_the_smallest_of_several_ways_to_deflate_is_taken(density: float) -> None:
    mask = Mask.of(random_mask(SIZE, density))
    assert len(mask.deflated()) <= len(zlib.compress(mask.bits.tobytes(), 1))


@pytest.mark.parametrize("axis", [0, 1])
def test_pruned_rows_and_columns_cost_next_to_nothing(axis: int) -> None:
    kept = random_mask(768, 0.5).reshape((768, 1) if axis == 0 else (1, 768))
    mask = Mask.of(np.broadcast_to(kept, (768, 768)))
    assert len(mask.deflated()) < mask.size / 8 / 20


@pytest.mark.parametrize("size", [2499, 2501, 10**6])
def test_bits_of_another_number_are_refused(size: int) -> None:
    assert "not the whole of 20000 bits" in refused(zlib.compress(bytes(size)))


@pytest.mark.parametrize("left", [0, 1, 5, -1])
def test_mask_cut_short_is_refused(left: int) -> None:
    written = Mask.of(random_mask(SIZE, 0.3)).deflated()[:left]
    assert "not the whole of 20000 bits" in refused(written)


def test_mask_that_is_not_deflated_is_refused() -> None:
    assert refused(random.Random(0).randbytes(100)).startswith("zlib says: ")


def test_the_file_of_an_older_run_is_read(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(OLDER)
    masks = read_masks(tmp_path, dict.fromkeys(KEPT, 0.5))
    assert {path: mask.unpacked().astype(int).tolist() for path, mask in masks.items()} == KEPT


@pytest.mark.parametrize("bits", [1, 3])
def test_an_older_file_with_bits_of_another_number_is_refused(bits: int, tmp_path: Path) -> None:
    shapes = json.dumps({NEURONS: [9]})
    save_file({NEURONS: np.zeros(bits, np.uint8)}, tmp_path / FILE, {"shapes": shapes})
    with pytest.raises(ValueError, match=rf"{NEURONS} has not the 2 bytes of its shape \[9\]"):
        read_masks(tmp_path, {NEURONS: 0.5})


def test_a_run_writes_what_is_read_again(tmp_path: Path) -> None:
    write_masks(tmp_path, {path: torch.tensor(kept).bool() for path, kept in KEPT.items()})
    masks = read_masks(tmp_path, dict.fromkeys(KEPT, 0.5))
    assert {path: mask.unpacked().astype(int).tolist() for path, mask in masks.items()} == KEPT
    with safe_open(tmp_path / FILE, "np") as stored:
        assert set(stored.keys()) == set(KEPT)
        assert zlib.decompress(stored.get_tensor(NEURONS).tobytes()) == bytes([0b01011001, 1])


def test_what_describes_masks_comes_back_and_their_bytes_are_said(tmp_path: Path) -> None:
    kept = random_mask(SIZE, 0.1)
    sizes = write_mask_file(tmp_path / "file", {"a": Mask.of(kept)}, tasks=[["x", "y"]])
    masks, described = read_mask_file(tmp_path / "file", name="file")
    assert described["tasks"] == [["x", "y"]]
    assert np.array_equal(masks["a"].unpacked(), kept)
    assert 0 < (tmp_path / "file").stat().st_size - sizes["a"] < 300


def rewritten(file: Path, version: int, **described: Any) -> None:
    content = json.loads(HEADER.write(described)[HEADER.key]) | {"version": version}
    stored = np.frombuffer(Mask.of(random_mask(9, 0.5)).deflated(), np.uint8)
    save_file({"a": stored}, file, {HEADER.key: json.dumps(content)})


@pytest.mark.parametrize(
    ("version", "described", "sentence"),
    [
        (1, {"0": {"tasks": [], "masks": {}}}, "`multiprune.masks` must be 2, but is 1: write"),
        (3, {"shapes": {"a": [9]}}, "must be 2, but is 3"),
        (2, {"shapes": {"a": [99]}}, r"a must fit its shape \[99\], but it is not the whole"),
        (2, {"shapes": {"a": [-9]}}, "`a.0` of its metadata must be greater than 0, but is -9"),
        (2, {"shapes": {"b": [9]}}, "but `a` is there besides"),
        (2, {}, "its metadata"),
    ],
)
def test_other_files_are_refused_in_one_sentence(
    version: int, described: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    rewritten(tmp_path / "file", version, **described)
    with pytest.raises(ValueError, match=rf"^the file must be whole, but: .*{sentence}"):
        read_mask_file(tmp_path / "file", name="the file")
