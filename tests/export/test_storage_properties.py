"""What is stored comes back bit for bit, whatever it is, and damage is always noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import masks, names, refusal_with, seeds
from trained_tokenizers import TOKENIZERS, TRAINING

from multiprune.export.bitmask import compress, decompress, load_bitmask, save_bitmask
from multiprune.export.packed import Kept, load_masks, save_masks
from multiprune.export.switching import SharedWeight
from multiprune.export.tokenizer import FastTokenizer
from multiprune.runs.masks import Mask

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

SIZES = st.one_of(st.integers(0, 40), st.integers(0, 3000), st.sampled_from([65_536, 65_537]))
DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.int64, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stored")


@given(masks(SIZES))
def test_a_mask_comes_back_from_its_bytes(mask: NDArray[np.bool_]) -> None:
    found = Mask.inflated(Mask.of(mask).deflated(), mask.shape)
    assert np.array_equal(found.unpacked(), mask)
    # Eight bits to a byte, and what zlib adds where nothing can be deflated.
    assert len(Mask.of(mask).deflated()) <= (len(mask) + 7) // 8 + 16


@given(masks(st.integers(1, 3000)), seeds, st.integers(1, 3))
def test_damaged_bytes_of_a_mask_are_refused(
    mask: NDArray[np.bool_], seed: int, changes: int
) -> None:
    generator, written = np.random.default_rng(seed), bytearray(Mask.of(mask).deflated())
    for _ in range(changes):
        written[generator.integers(len(written))] ^= int(generator.integers(1, 256))
    with refusal_with(""):
        # The bits that fill up the last byte before zlib's checksum say nothing.
        found = Mask.inflated(bytes(written), mask.shape)
        assert np.array_equal(found.unpacked(), mask)


def stored_tensor(mask: NDArray[np.bool_], dtype: torch.dtype, seed: int) -> Tensor:
    """Return any bits where the mask is set, NaN and infinity and -0.0 among them."""
    width = torch.empty(0, dtype=dtype).itemsize
    bits = np.random.default_rng(seed).integers(0, 256, (len(mask), width), dtype=np.uint8)
    # Nothing but the sign is set of -0.0.
    bits[seed % 3 :: 3] = [*bytes(width - 1), 0x80]
    bits[~mask] = 0
    if dtype == torch.bool:
        return torch.from_numpy(bits[:, 0] > 127)
    return torch.from_numpy(bits.reshape(-1)).view(dtype)


def same_bits(left: Tensor, right: Tensor) -> bool:
    kinds = left.dtype == right.dtype and left.shape == right.shape
    as_bytes = [one.reshape(-1).contiguous().view(torch.uint8) for one in (left, right)]
    return kinds and torch.equal(*as_bytes)


@st.composite
def states(draw: st.DrawFn) -> dict[str, Tensor]:
    """Draw tensors by name, of several types and shapes, some of them transposed."""
    found: dict[str, Tensor] = {}
    for name in draw(st.lists(names, max_size=3, unique=True)):
        tensor = stored_tensor(
            draw(masks(st.integers(0, 40) | st.integers(0, 2000))),
            draw(st.sampled_from(DTYPES)),
            draw(seeds),
        )
        even = tensor[: len(tensor) // 2 * 2]
        shapes = [tensor, even.view(-1, 2), even.view(2, -1).t(), even.view(1, -1, 2)]
        found[name] = draw(
            st.sampled_from([*shapes, tensor[:1].reshape(())] if len(tensor) else shapes)
        )
    return found


@given(states())
def test_tensors_of_any_type_and_shape_come_back(folder: Path, state: dict[str, Tensor]) -> None:
    stored, metadata = compress(state)
    again = decompress(stored.keys(), stored.__getitem__, metadata)
    save_bitmask({name: one.contiguous() for name, one in state.items()}, folder / "state")
    loaded = load_bitmask(folder / "state")
    assert set(again) == set(loaded) == set(state)
    for name, tensor in state.items():
        assert same_bits(again[name], tensor)
        assert same_bits(loaded[name], tensor)
    assert sum(one.nbytes for one in stored.values()) <= sum(one.nbytes for one in state.values())


@given(states().filter(bool), seeds, st.sampled_from(["changed", "cut"]))
def test_a_damaged_file_is_refused(
    folder: Path, state: dict[str, Tensor], seed: int, damage: str
) -> None:
    generator, file = np.random.default_rng(seed), folder / "damaged"
    save_bitmask({name: one.contiguous() for name, one in state.items()}, file)
    whole = file.read_bytes()
    place = int(generator.integers(len(whole)))
    # What is said of tensors is as likely as what is in them.
    place = place % 600 if seed % 2 and len(whole) > 600 else place
    changed = bytes([whole[place] ^ int(generator.integers(1, 256))])
    file.write_bytes(whole[:place] + (changed + whole[place + 1 :] if damage == "changed" else b""))
    with refusal_with(str(file)):
        # White space around JSON says nothing.
        found = load_bitmask(file)
        assert set(found) == set(state)
        assert all(same_bits(found[name], one) for name, one in state.items())


@given(
    masks(st.integers(1, 400)),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seeds,
)
def test_a_model_has_the_bits_of_those_weights_that_it_keeps(
    mask: NDArray[np.bool_], dtype: torch.dtype, seed: int
) -> None:
    weight = stored_tensor(np.ones_like(mask), dtype, seed)
    for shape in [(len(mask),), (1, len(mask)), (len(mask), 1)]:
        shared = SharedWeight(weight.view(shape), [None, Mask.of(mask.reshape(shape))])
        assert same_bits(shared.part_of(0), weight.view(shape))
        kept, found = shared.part_of(1).view(-1), torch.from_numpy(mask)
        assert same_bits(kept[found], weight[found])
        assert same_bits(kept[~found], torch.zeros_like(weight[~found]))


@given(
    masks(st.integers(1, 700)), st.lists(st.tuples(seeds, st.floats(0, 1)), min_size=1, max_size=3)
)
def test_masks_of_shared_weights_come_back_where_weights_are_shared(
    folder: Path, shared: NDArray[np.bool_], models: list[tuple[int, float]]
) -> None:
    weight = torch.from_numpy(np.where(shared, 1.5, 0.0))
    weights = {"a.weight": weight[None], "b.weight": weight[:, None]}
    kept = []
    for number, (seed, density) in enumerate(models):
        generator = np.random.default_rng(seed)
        chosen = {path: (generator.random(len(shared)) < density) & shared for path in weights}
        of_weights = {
            path: Mask.of(one.reshape(weights[path].shape)) for path, one in chosen.items()
        }
        kept.append(Kept([f"task {number}"], of_weights))
    sizes = save_masks(kept, weights, folder / "masks")
    loaded = load_masks(folder / "masks", weights)
    assert len(sizes) == len(loaded) == len(kept)
    for model, again in zip(kept, loaded, strict=True):
        assert list(again.tasks) == list(model.tasks)
        for path, mask in model.masks.items():
            if path in again.masks:
                assert np.array_equal(again.masks[path].unpacked(), mask.unpacked())
            else:
                # All that is shared is kept.
                assert np.array_equal(mask.unpacked().reshape(-1), shared)


#: Words of the training sentences, parts of them, and others.
WORDS = sorted({word for text in TRAINING for word in text.split()})
pieces = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(WORDS).map(lambda word: word[:3]),
    st.sampled_from(["", "x", "☃", "日本日", "qzj", "  ", "[MASK]", "<mask>", "\u0301", "1,5"]),
)
corpora = st.lists(
    st.lists(pieces, max_size=6).flatmap(
        lambda words: st.sampled_from([" ".join(words), "".join(words), words])
    ),
    min_size=1,
    max_size=4,
)


def split(tokenizer: Any, text: str | list[str]) -> list[str]:
    ids = tokenizer([text], is_split_into_words=isinstance(text, list))["input_ids"][0]
    tokens: list[str] = tokenizer.convert_ids_to_tokens(ids)
    return tokens


# A tokenizer is made for each.
@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=max(6, settings().max_examples // 6))
@given(corpus=corpora, characters=st.booleans())
def test_a_corpus_is_split_as_before_by_what_is_left_of_a_vocabulary(
    kind: str, corpus: list[str | list[str]], characters: bool
) -> None:
    tokenizer = TOKENIZERS[kind]
    fast = FastTokenizer(tokenizer)
    kept = fast.model.close(fast.used_ids(corpus) | fast.special_ids, characters=characters)
    numbers = {number: place for place, number in enumerate(sorted(kept))}
    restricted = fast.restrict(numbers)
    assert len(restricted) == len(kept)
    before = {number: token for token, number in tokenizer.get_vocab().items()}
    assert restricted.get_vocab() == {before[number]: place for number, place in numbers.items()}
    for text in corpus:
        if isinstance(text, str):
            assert split(restricted, text) == split(tokenizer, text)
