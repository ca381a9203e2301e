"""Values that several tests of properties draw."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypothesis.strategies import SearchStrategy
    from numpy.typing import NDArray
    from torch import Tensor

#: Ends of lines, marks, and characters that others read as two or as none.
_ODD = "\0\t\n\v\r\x1c\x85\u2028\ufeff \u00a0'\"\\,;:=#$*@/%{}[]()<>|&İßﬁée\u0301日🙂\u200d"
#: All of Unicode but surrogates, which no file holds. (Hypothesis's own take seconds to list.)
characters = st.one_of(
    st.sampled_from("abcxyzABC0129._-"),
    st.sampled_from(_ODD),
    st.integers(0, 0x10F7FF).map(lambda code: chr(code + 0x800 * (code >= 0xD800))),
)
texts = st.text(characters, max_size=12)
#: Names such as those of tasks and settings.
names = st.text(st.sampled_from("abcxyz_"), min_size=1, max_size=5)
seeds = st.integers(0, 2**32 - 1)

#: What JSON can hold, up to numbers that are none.
json_values: SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner),
    max_leaves=8,
)


def vectors(dtype: torch.dtype, sizes: SearchStrategy[int]) -> SearchStrategy[Tensor]:
    """Draw vectors of any numbers but NaN, among which some are equal."""
    width = torch.finfo(dtype).bits
    numbers = st.floats(width=32 if width > 16 else 16, allow_nan=False)
    few = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0])
    return sizes.flatmap(
        lambda size: st.one_of(
            [st.lists(kind, min_size=size, max_size=size) for kind in (numbers, few)]
        )
    ).map(lambda drawn: torch.tensor(drawn, dtype=torch.float64).to(dtype))


def masks(sizes: SearchStrategy[int]) -> SearchStrategy[NDArray[np.bool_]]:
    """Draw masks of any density, random, in runs or with gaps about those that a byte holds."""

    def mask(size: int, density: float, run: int, seed: int) -> NDArray[np.bool_]:
        kept = np.random.default_rng(seed).random(-(-size // run)) < density
        return kept.repeat(run)[:size]

    def gaps(size: int, drawn: list[int]) -> NDArray[np.bool_]:
        kept = np.zeros(size, np.bool_)
        places = np.cumsum(np.array(drawn, np.int64) + 1) - 1
        kept[places[places < size]] = True
        return kept

    densities = st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.125, 0.5, 0.99, 1.0])
    lengths = st.sampled_from([0, 1, 100, 253, 254, 255, 256, 509, 510, 511])
    return st.one_of(
        st.builds(mask, sizes, densities, st.sampled_from([1, 1, 3, 64, 255, 256]), seeds),
        st.builds(gaps, sizes, st.lists(lengths, max_size=6)),
    )


def integers(shape: Any, low: int, high: int) -> SearchStrategy[NDArray[np.int64]]:
    """Draw arrays of integers from ``low`` to ``high``."""
    return arrays.arrays(np.int64, shape, elements=st.integers(low, high))


@contextmanager
def refusal_with(words: str) -> Iterator[None]:
    """Let what is drawn be refused, by a ValueError in one line that has these words."""
    try:
        yield
    except ValueError as error:
        if words not in str(error) or "\n" in str(error):
            raise AssertionError(f"{words!r} is not in {error!r}") from error
