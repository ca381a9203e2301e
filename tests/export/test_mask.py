import random
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from multiprune.export.mask import CODINGS, decode, encode

SIZE = 20_000


def random_mask(size: int, density: float, seed: int = 0) -> NDArray[np.bool_]:
    kept: NDArray[np.bool_] = np.random.default_rng(seed).random(size) < density
    return kept


def positions(name: str, written: bytes, *, size: int, count: int) -> list[int]:
    decoded = decode(name, written, size=size, count=count)
    return [start + int(place) for start, places in decoded for place in places]


def through(name: str, mask: NDArray[np.bool_]) -> list[int]:
    written = zlib.compress(CODINGS[name].encode(mask))
    return positions(name, written, size=len(mask), count=int(mask.sum()))


@pytest.mark.parametrize("name", CODINGS)
@pytest.mark.parametrize("density", [0.0, 0.001, 0.02, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 4096, 65_535, 65_536, 65_537, 131_079])
def test_set_bits_are_found_again(name: str, density: float, size: int) -> None:
    mask = random_mask(size, density)
    assert through(name, mask) == [place for place in range(size) if mask[place]]


@pytest.mark.parametrize("name", CODINGS)
@pytest.mark.parametrize("distance", [0, 1, 253, 254, 255, 256, 509, 510, 511, 2000])
def test_every_distance_of_two_bits_is_kept(name: str, distance: int) -> None:
    set_bits = [3, 4 + distance, SIZE - 1]
    mask = np.zeros(SIZE, np.bool_)
    mask[set_bits] = True
    assert through(name, mask) == set_bits


def test_bits_are_packed_with_the_first_one_lowest() -> None:
    mask = np.array([1, 0, 1, 0, 0, 0, 0, 0, 0, 1], np.bool_)
    assert CODINGS["bits"].encode(mask) == bytes([0b101, 0b10])


def test_gaps_are_counts_of_zeros_with_escapes_for_255() -> None:
    mask = np.zeros(1000, np.bool_)
    mask[[0, 5, 5 + 1 + 255, 5 + 1 + 255 + 1 + 600]] = True
    assert CODINGS["gaps"].encode(mask) == bytes([0, 4, 255, 0, 255, 255, 90])


@pytest.mark.parametrize(("density", "name"), [(0.01, "gaps"), (0.3, "bits"), (0.99, "bits")])
def test_the_smaller_coding_is_taken(density: float, name: str) -> None:
    mask = random_mask(SIZE, density)
    coding, written = encode(mask)
    assert coding == name
    assert all(len(written) <= len(zlib.compress(one.encode(mask), 1)) for one in CODINGS.values())


@pytest.mark.parametrize("axis", [0, 1])
def test_pruned_rows_and_columns_cost_next_to_nothing(axis: int) -> None:
    kept = random_mask(768, 0.5).reshape((768, 1) if axis == 0 else (1, 768))
    mask = np.broadcast_to(kept, (768, 768)).reshape(-1)
    coding, written = encode(mask)
    assert len(written) < len(mask) / 8 / 20
    assert positions(coding, written, size=len(mask), count=int(mask.sum())) == list(
        np.flatnonzero(mask)
    )


@pytest.mark.parametrize(
    ("name", "coded", "sentence"),
    [
        ("bits", bytes([255, 1]) + bytes(2498), "9 bits are set for 8 values"),
        ("bits", bytes([127]) + bytes(2499), "7 bits are set for 8 values"),
        ("bits", bytes([255]) + bytes(2498), "20000 bits do not take 2499 bytes"),
        ("bits", bytes([255]) + bytes(2500), "20000 bits do not take 2501 bytes"),
        ("bits", bytes([255]) + bytes(10**6), "not the whole of 20000 bits"),
        ("gaps", bytes(9), "9 bits are set for 8 values"),
        ("gaps", bytes(7), "7 bits are set for 8 values"),
        ("gaps", bytes([255] * 78 + [103]) + bytes(7), "bit 20000 of 20000 is set"),
        ("gaps", bytes(10**6), "not the whole of 20000 bits"),
    ],
)
def test_mask_that_does_not_fit_is_refused(name: str, coded: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        positions(name, zlib.compress(coded), size=SIZE, count=8)


def test_last_bit_may_be_set() -> None:
    coded = bytes([255] * 78 + [102]) + bytes(7)
    expected = list(range(SIZE - 8, SIZE))
    assert positions("gaps", zlib.compress(coded), size=SIZE, count=8) == expected


@pytest.mark.parametrize("left", [0, 1, 5, -1])
def test_mask_cut_short_is_refused(left: int) -> None:
    mask = random_mask(SIZE, 0.3)
    written = encode(mask)[1][:left]
    with pytest.raises(ValueError, match="not the whole of 20000 bits"):
        positions("bits", written, size=SIZE, count=int(mask.sum()))


def test_mask_that_is_not_deflated_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^zlib says: "):
        positions("bits", random.Random(0).randbytes(100), size=SIZE, count=8)


def test_unknown_coding_is_refused() -> None:
    with pytest.raises(ValueError, match=r"its coding is `other`, not one of \['bits', 'gaps'\]"):
        positions("other", b"", size=SIZE, count=8)
