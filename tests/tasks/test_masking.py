"""Which tokens are hidden, and by what, held against the definition."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import Tensor
from transformers import GPT2Tokenizer

from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks.masking import MaskVocabulary, mask_vocabulary, masked, random_numbers
from multiprune.tasks.rows import IGNORED

MASK = 4
VOCABULARY = MaskVocabulary(MASK, torch.arange(5, 105))
EXAMPLES, LENGTH = 40, 500
SEEDS = [[7, number] for number in range(EXAMPLES)]


def texts() -> tuple[Tensor, Tensor]:
    """Make texts of words of one to three tokens, between a special token at each end."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 105, (EXAMPLES, LENGTH), generator=generator)
    words = torch.full((EXAMPLES, LENGTH), IGNORED)
    place = 1
    while place < LENGTH - 1:
        size = min(1 + place % 3, LENGTH - 1 - place)
        words[:, place : place + size] = place
        place += size
    tokens[:, 0], tokens[:, -1] = 2, 3
    return tokens, words


def hide(probability: float = 0.15, *, whole_words: bool = False) -> tuple[Tensor, Tensor]:
    tokens, words = texts()
    numbers = random_numbers(SEEDS, LENGTH)
    return masked(
        tokens, words, numbers, VOCABULARY, probability=probability, whole_words=whole_words
    )


def assert_share(found: Tensor, expected: float) -> None:
    """Assert that a share of trials is within five standard deviations."""
    deviation = sqrt(expected * (1 - expected) / found.numel())
    assert abs(float(found.double().mean()) - expected) < 5 * deviation


@pytest.mark.parametrize("probability", [0.15, 0.4])
def test_shares_of_hidden_and_replaced_tokens_are_those_of_the_definition(
    probability: float,
) -> None:
    tokens, words = texts()
    read, labels = hide(probability)
    hidden = labels != IGNORED
    assert_share(hidden[words != IGNORED], probability)
    assert_share((read == MASK)[hidden], 0.8)
    # One random token in a hundred is the token itself.
    assert_share(((read != MASK) & (read != tokens))[hidden], 0.1 * 0.99)
    assert torch.equal(labels[hidden], tokens[hidden])
    assert torch.equal(read[~hidden], tokens[~hidden])


@pytest.mark.parametrize("whole_words", [False, True])
def test_special_tokens_are_never_hidden_and_never_stand_for_others(whole_words: bool) -> None:
    tokens, words = texts()
    read, labels = hide(1.0, whole_words=whole_words)
    assert torch.equal(labels != IGNORED, words != IGNORED)
    assert torch.equal(read[words == IGNORED], tokens[words == IGNORED])
    assert not torch.isin(read[words != IGNORED], torch.arange(4)).any()


def test_words_are_hidden_whole_and_with_the_probability_of_words() -> None:
    _, words = texts()
    hidden = hide(whole_words=True)[1] != IGNORED
    chosen = []
    for place in torch.unique(words[0])[1:]:
        of_word = hidden[:, words[0] == place]
        assert torch.equal(of_word.all(1), of_word.any(1))
        chosen.append(of_word[:, 0])
    assert_share(torch.stack(chosen), 0.15)
    # Single tokens are not chosen by words.
    apart = hide()[1] != IGNORED
    assert any(
        not torch.equal(apart[:, words[0] == place].all(1), apart[:, words[0] == place].any(1))
        for place in torch.unique(words[0])[1:]
    )


def test_each_example_has_a_hidden_token_if_it_has_one_that_may_be() -> None:
    tokens, words = torch.full((50, 3), 9), torch.tensor([[IGNORED, 1, 2]] * 50)
    words[7] = IGNORED
    numbers = random_numbers([[number] for number in range(50)], 3)
    for whole_words in (False, True):
        _, labels = masked(
            tokens, words, numbers, VOCABULARY, probability=0.01, whole_words=whole_words
        )
        counts = (labels != IGNORED).sum(1)
        assert counts[7] == 0
        assert (counts[torch.arange(50) != 7] == 1).all()


def test_what_is_hidden_depends_on_the_seed_of_the_example_and_not_on_its_padding() -> None:
    short, long = random_numbers([[1, 2], [1, 3]], 10), random_numbers([[1, 3]], 25)
    assert torch.equal(short[1], long[0, :10])
    assert not torch.equal(short[0], short[1])


def test_a_tokenizer_lends_its_ordinary_tokens() -> None:
    tokenizer = character_tokenizer()
    vocabulary = mask_vocabulary(tokenizer)
    assert vocabulary.mask == tokenizer.mask_token_id
    special = {0, 1, 2, 3, 4}
    assert set(vocabulary.ordinary.tolist()) == set(range(len(tokenizer))) - special


def test_a_tokenizer_without_a_token_that_hides_is_refused() -> None:
    with pytest.raises(ValueError, match="a GPT2Tokenizer has none"):
        mask_vocabulary(GPT2Tokenizer(vocab={"a": 0}, merges=[]))
