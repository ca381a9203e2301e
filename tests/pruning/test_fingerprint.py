"""Fingerprints: equal for equal masks, different after the smallest change."""

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor

from multiprune.pruning.fingerprint import mask_checksums, mask_digest

SHAPES = [(8, 8), (3, 7), (1,), (5, 16)]


def masks(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"layers.{i}.weight": torch.rand(shape, generator=generator) < 0.3
        for i, shape in enumerate(SHAPES)
    }


def test_equal_masks_have_equal_fingerprints() -> None:
    assert torch.equal(mask_checksums(masks()), mask_checksums(masks()))
    assert mask_digest(masks()) == mask_digest(masks())


def test_there_is_one_checksum_a_mask() -> None:
    checksums = mask_checksums(masks())
    assert checksums.shape == (4,)
    assert checksums.dtype == torch.int64


def test_flipping_any_bit_changes_its_checksum_and_the_digest() -> None:
    whole, digest = mask_checksums(masks()), mask_digest(masks())
    for row, (path, mask) in enumerate(masks().items()):
        for i in range(mask.numel()):
            changed = masks()
            changed[path].view(-1)[i] ^= True
            differs = mask_checksums(changed) != whole
            assert differs.tolist() == [row == other for other in range(4)]
            assert mask_digest(changed) != digest


def test_one_kept_weight_has_a_checksum_of_its_own_wherever_it_is() -> None:
    alone = {str(i): mask for i, mask in enumerate(torch.eye(2048, dtype=torch.bool))}
    checksums = set(mask_checksums(alone).tolist())
    assert len(checksums) == 2048
    assert 0 not in checksums  # that of nothing kept


@pytest.mark.parametrize("shape", [(8, 8), (3, 7)])
def test_swapping_any_two_bits_changes_both(shape: tuple[int, int]) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    checksum, digest = mask_checksums({"weight": mask}), mask_digest({"weight": mask})
    for i in mask.view(-1).nonzero().view(-1):
        for j in (~mask).view(-1).nonzero().view(-1):
            swapped = mask.clone()
            swapped.view(-1)[i], swapped.view(-1)[j] = False, True
            assert not torch.equal(mask_checksums({"weight": swapped}), checksum)
            if i == 0:
                assert mask_digest({"weight": swapped}) != digest


def test_digest_is_the_hash_of_sorted_paths_and_packed_bits() -> None:
    digest = hashlib.sha256()
    for path in sorted(masks()):
        digest.update(path.encode())
        bits = masks()[path].numpy().reshape(-1)
        digest.update(np.packbits(bits, bitorder="little").tobytes())
    assert mask_digest(masks()) == digest.hexdigest()


def test_digest_depends_on_paths_and_not_on_their_order() -> None:
    backwards = dict(reversed(masks().items()))
    assert mask_digest(backwards) == mask_digest(masks())
    renamed = {path.replace("layers", "layer"): mask for path, mask in masks().items()}
    assert mask_digest(renamed) != mask_digest(masks())


def test_transposed_mask_is_read_in_the_order_of_its_indices() -> None:
    mask = masks()["layers.1.weight"]
    stored, view = {"weight": mask.t().contiguous()}, {"weight": mask.t()}
    assert torch.equal(mask_checksums(stored), mask_checksums(view))
    assert mask_digest(stored) == mask_digest(view)
