"""Each kind of tokenizer, small enough to split texts by hand."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from trained_tokenizers import (
    TOKENIZERS,
    TRAINING,
    bert_of,
    by_id,
    model_of,
    numbered,
    wrapped,
)
from transformers import BertConfig, BertModel

from multiprune.export.vocabulary import prune_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable

CORPUS = ["the quick dog jumped over the newest price", "a lazy fox is the quickest ☃"]


def prune(tokenizer: Any, texts: list[str], *, keep_characters: bool = True) -> Any:
    sizes: dict[str, Any] = {"hidden_size": 2, "num_hidden_layers": 0, "num_attention_heads": 1}
    encoder = BertModel(BertConfig(vocab_size=len(tokenizer), **sizes))
    return prune_vocabulary(encoder, tokenizer, texts, keep_characters=keep_characters)


def pairs_of(tokens: list[str], merges: list[tuple[str, str]], **options: Any) -> Any:
    return wrapped(Tokenizer(models.BPE(numbered(tokens), merges, **options)))


def unigrams_of(scores: list[tuple[str, float]], **options: Any) -> Any:
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), *scores], unk_id=0, **options))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return wrapped(backend, unk_token="<unk>")


def random_words(random: Random, count: int, alphabet: str) -> list[str]:
    return ["".join(random.choices(alphabet, k=random.randint(1, 6))) for _ in range(count)]


def random_pieces(random: Random) -> Any:
    pieces = [random.choice(["", "##"]) + word for word in random_words(random, 40, "abc")]
    return bert_of(sorted(set(pieces)))


def random_pairs(random: Random) -> Any:
    """Make all pairs whose parts and result are tokens, as SentencePiece's vocabularies have."""
    tokens = sorted({*"abc", *random_words(random, 60, "abc")}, key=len)
    pairs = [
        (token[:cut], token[cut:])
        for token in tokens
        for cut in range(1, len(token))
        if {token[:cut], token[cut:]} <= set(tokens)
    ]
    random.shuffle(pairs)
    return pairs_of(tokens, pairs, ignore_merges=random.choice([True, False]))


def random_unigrams(random: Random) -> Any:
    tokens = sorted(set(random_words(random, 40, "abc")))
    # Few different scores, so that there are ties.
    return unigrams_of([(token, random.choice([-1.1, -2.3, -9.7])) for token in tokens])


@pytest.mark.parametrize("make", [random_pieces, random_pairs, random_unigrams])
@pytest.mark.parametrize("keep_characters", [True, False])
def test_random_vocabulary_splits_its_corpus_as_before(
    make: Callable[[Random], Any], *, keep_characters: bool
) -> None:
    dropped = 0
    for seed in range(40):
        random = Random(seed)
        tokenizer = make(random)
        corpus = random_words(random, 10, "abcd")
        pruned = prune(tokenizer, corpus, keep_characters=keep_characters)
        for word in corpus:
            old, new = tokenizer(word)["input_ids"], pruned(word)["input_ids"]
            expected = tokenizer.convert_ids_to_tokens(old)
            assert pruned.convert_ids_to_tokens(new) == expected, (seed, word)
        for word in random_words(random, 10, "abcdé"):
            pruned(word)
        dropped += len(tokenizer) - len(pruned)
    assert dropped > 40 * 5


def test_unknown_word_of_the_corpus_stays_unknown() -> None:
    tokenizer = bert_of(["ab", "a", "##bc", "x", "fox"])
    pruned = prune(tokenizer, ["ABC, xbc", "a"])
    # "ab" matches first and leaves "c", which is unknown; without it, "a ##bc" would match.
    assert pruned.tokenize("abc xbc") == tokenizer.tokenize("abc xbc") == ["[UNK]", "x", "##bc"]
    assert "fox" not in pruned.get_vocab()


@pytest.mark.parametrize("keep_characters", [True, False])
def test_new_words_become_characters_where_these_are_kept(*, keep_characters: bool) -> None:
    tokenizer = bert_of(["fox", "run", "f", "##o", "##x", "o"])
    pruned = prune(tokenizer, ["run"], keep_characters=keep_characters)
    assert pruned.tokenize("fox") == (["f", "##o", "##x"] if keep_characters else ["[UNK]"])


@pytest.mark.parametrize("keep_characters", [True, False])
def test_new_words_become_known_unigrams_where_these_are_kept(*, keep_characters: bool) -> None:
    tokenizer = unigrams_of([("fox", -2.0), ("f", -4.0), ("o", -4.0), ("x", -5.0), ("ox", -3.0)])
    pruned = prune(tokenizer, ["ox"], keep_characters=keep_characters)
    # "x" stays in any case, as the least probable; "f", if not kept, is unknown.
    assert pruned.tokenize("fox") == ["f", "ox"]
    assert (pruned.get_vocab().get("f") is not None) is keep_characters
    assert (pruned.unk_token_id in pruned("fox")["input_ids"]) is not keep_characters


def test_pairs_that_make_a_kept_token_stay_and_no_others() -> None:
    tokenizer = pairs_of(
        ["a", "b", "c", "d", "bc", "ab", "abc", "cd", "bcd"],
        [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc"), ("c", "d"), ("b", "cd")],
    )
    pruned = prune(tokenizer, ["abc"])
    # "bc" ranks first, so that "abc" is made of "a" and "bc", never of "ab" and "c".
    assert by_id(pruned) == ["a", "b", "c", "d", "bc", "abc"]
    assert model_of(pruned)["merges"] == [["b", "c"], ["a", "bc"]]
    assert pruned.tokenize("abc") == ["abc"]
    assert pruned.tokenize("bcd") == ["bc", "d"]
    assert pruned.tokenize("ab") == ["a", "b"]


def test_pairs_with_marks_of_place_stay() -> None:
    tokenizer = pairs_of(
        ["a", "b", "a</w>", "b</w>", "ab</w>", "ab", "aab</w>"],
        [("a", "b</w>"), ("a", "b"), ("a", "ab</w>")],
        end_of_word_suffix="</w>",
    )
    pruned = prune(tokenizer, ["aab"])
    assert pruned.tokenize("aab") == tokenizer.tokenize("aab") == ["aab</w>"]
    assert by_id(pruned) == ["a", "b", "a</w>", "b</w>", "ab</w>", "aab</w>"]


def test_whole_words_that_no_pair_makes_stay() -> None:
    tokenizer = pairs_of(["a", "b", "c", "ab", "abc"], [("a", "b")], ignore_merges=True)
    pruned = prune(tokenizer, ["abc"])
    assert pruned.tokenize("abc") == tokenizer.tokenize("abc") == ["abc"]
    assert pruned.tokenize("ab") == ["a", "b"]


def test_pairs_of_fallback_bytes_stay() -> None:
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = pairs_of(
        [*alphabet, "a", "aa", "<0xC3><0xA9>"],
        [("<0xC3>", "<0xA9>"), ("a", "a")],
        byte_fallback=True,
    )
    pruned = prune(tokenizer, ["é"])
    assert pruned.tokenize("é") == tokenizer.tokenize("é") == ["<0xC3><0xA9>"]
    assert pruned.tokenize("ñ") == ["<0xC3>", "<0xB1>"]
    assert "aa" not in pruned.get_vocab()


def test_bytes_stay_so_that_no_text_is_lost() -> None:
    pruned = prune(TOKENIZERS["roberta"], CORPUS, keep_characters=False)
    text = "zebra ☃ Ünïcode \t 日本"
    assert pruned.decode(pruned(text, add_special_tokens=False)["input_ids"]) == text


def test_unknown_characters_cost_as_much_as_before() -> None:
    scores = [("a!b", -12.0), ("c", -12.0), ("a", -0.5), ("bc", -0.5)]
    tokenizer = unigrams_of([*scores, ("zz", -11.0), ("z", -11.0), ("y", -20.0), ("yy", -9.0)])
    pruned = prune(tokenizer, ["a!bc", "a bc"], keep_characters=False)
    assert pruned.tokenize("a!bc") == tokenizer.tokenize("a!bc") == ["a!b", "c"]
    assert by_id(pruned) == ["<unk>", "a!b", "c", "a", "bc", "y"]
    # Without the least probable token, the split with an unknown character would win.
    assert unigrams_of(scores).tokenize("a!bc") == ["a", "!", "bc"]


def test_scores_of_unigrams_stay_to_the_last_bit() -> None:
    tokenizer = TOKENIZERS["xlm-roberta"]
    pruned = prune(tokenizer, CORPUS)
    before = dict(model_of(tokenizer)["vocab"])
    after = model_of(pruned)
    assert after["vocab"] == [[token, before[token]] for token, _ in after["vocab"]]
    assert after["vocab"][after["unk_id"]][0] == "<unk>"


def test_fallback_bytes_of_unigrams_stay() -> None:
    fallback = [(f"<0x{byte:02X}>", -9.0) for byte in range(256)]
    tokenizer = unigrams_of([("a", -1.0), ("aa", -1.0), *fallback], byte_fallback=True)
    pruned = prune(tokenizer, ["a"], keep_characters=False)
    assert pruned.tokenize("é") == ["<0xC3>", "<0xA9>"]
    assert "aa" not in pruned.get_vocab()


def test_words_that_are_not_kept_are_unknown() -> None:
    pruned = prune(TOKENIZERS["words"], TRAINING[:1])
    assert pruned.convert_ids_to_tokens(pruned("the price")["input_ids"]) == [
        *["[CLS]", "the"],
        *["[UNK]", "[SEP]"],
    ]
