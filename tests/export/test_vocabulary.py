from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tokenizers import Tokenizer, models, processors
from torch import Tensor, nn
from trained_tokenizers import (
    BERT,
    TOKENIZERS,
    bert_of,
    by_id,
    numbered,
    roberta_tokenizer,
    word_pieces,
    wrapped,
)
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BertTokenizer,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaTokenizer,
)
from transformers.tokenization_python import PythonBackend

from multiprune.export.vocabulary import prune_vocabulary, used_tokens
from multiprune.models.from_scratch import character_tokenizer, from_scratch
from multiprune.tasks.synthetic import WORDS

SHARED = Path(__file__).parents[3] / "shared"
MINILM = SHARED / "models" / "minilm-l6"
RTE = SHARED / "data" / "glue" / "rte" / "train.parquet"

CORPUS = ["the quick dog jumped over the newest price", "a lazy fox is the quickest ☃", ""]
OTHERS = ["the brownest widow overtakes déjà vu 日本", "unseen zebra & ☃ \x00 [MASK] <mask>", " "]
# Each architecture with the tokenizer that goes with it.
ARCHITECTURES: dict[str, tuple[Any, str]] = {
    "bert": (BertConfig, "bert"),
    "bert of words": (BertConfig, "words"),
    "distilbert": (DistilBertConfig, "bert"),
    "electra": (ElectraConfig, "bert"),
    "mpnet": (MPNetConfig, "mpnet"),
    "roberta": (RobertaConfig, "roberta"),
    "modernbert": (ModernBertConfig, "modernbert"),
    "xlm-roberta": (XLMRobertaConfig, "xlm-roberta"),
    "deberta-v3": (DebertaV2Config, "deberta-v3"),
    "albert": (AlbertConfig, "albert"),
}
SIZES: dict[str, Any] = {
    "hidden_size": 8,
    "embedding_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 200,
    "relative_attention": True,
}
DISTILBERT: dict[str, Any] = {"dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}


def tiny(name: str, *, spare_rows: int = 3) -> tuple[PreTrainedModel, Any]:
    """Make an encoder whose embedding has rows to spare, as many have, and its tokenizer."""
    make_config, kind = ARCHITECTURES[name]
    tokenizer = TOKENIZERS[kind]
    names = [f"{part}_token_id" for part in ("pad", "bos", "eos", "cls", "sep")]
    config = make_config(
        vocab_size=len(tokenizer) + spare_rows,
        **{name: getattr(tokenizer, name) for name in names},
        **(DISTILBERT if name == "distilbert" else SIZES),
    )
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    return model.train(mode=False), tokenizer


def embedding_of(model: PreTrainedModel) -> nn.Embedding:
    return cast("nn.Embedding", model.get_input_embeddings())


@torch.no_grad()
def hidden_states(model: PreTrainedModel, tokenizer: Any, texts: list[str]) -> Tensor:
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    states: Tensor = model(**inputs).last_hidden_state
    return states


def tokens_of(tokenizer: Any, text: str) -> list[str]:
    tokens: list[str] = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
    return tokens


def encoder_for(tokenizer: Any) -> PreTrainedModel:
    return BertModel(BertConfig(vocab_size=len(tokenizer), **SIZES))


def prune(tokenizer: Any, texts: list[str]) -> Any:
    return prune_vocabulary(encoder_for(tokenizer), tokenizer, texts)


@pytest.mark.parametrize("keep_characters", [True, False])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_hidden_states_of_the_corpus_stay_bit_for_bit(name: str, *, keep_characters: bool) -> None:
    model, tokenizer = tiny(name)
    expected = hidden_states(model, tokenizer, CORPUS)
    pruned = prune_vocabulary(model, tokenizer, CORPUS, keep_characters=keep_characters)
    assert len(pruned) < len(tokenizer)
    assert torch.equal(hidden_states(model, pruned, CORPUS), expected)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pruned_encoder_survives_a_folder(name: str, tmp_path: Path) -> None:
    model, tokenizer = tiny(name)
    expected = hidden_states(model, tokenizer, CORPUS)
    pruned = prune_vocabulary(model, tokenizer, CORPUS)
    model.save_pretrained(tmp_path)
    pruned.save_pretrained(tmp_path)
    loaded, again = (
        AutoModel.from_pretrained(tmp_path),
        AutoTokenizer.from_pretrained(tmp_path),
    )
    assert again.get_vocab() == pruned.get_vocab()
    assert again(CORPUS + OTHERS)["input_ids"] == pruned(CORPUS + OTHERS)["input_ids"]
    assert torch.equal(hidden_states(loaded, again, CORPUS), expected)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pairs_are_put_together_as_before(name: str) -> None:
    model, tokenizer = tiny(name)
    pruned = prune_vocabulary(model, tokenizer, CORPUS)
    old, new = tokenizer(CORPUS[0], CORPUS[1]), pruned(CORPUS[0], CORPUS[1])
    expected = tokenizer.convert_ids_to_tokens(old["input_ids"])
    assert pruned.convert_ids_to_tokens(new["input_ids"]) == expected
    assert new.get("token_type_ids") == old.get("token_type_ids")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_texts_still_have_ids_within_the_embedding(name: str) -> None:
    model, tokenizer = tiny(name)
    pruned = prune_vocabulary(model, tokenizer, CORPUS, keep_characters=False)
    ids = [number for row in pruned(OTHERS)["input_ids"] for number in row]
    assert ids
    assert max(ids) < embedding_of(model).weight.shape[0]
    assert hidden_states(model, pruned, OTHERS).isfinite().all()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_token_keeps_its_embedding_and_its_place_in_the_order(name: str) -> None:
    model, tokenizer = tiny(name)
    before = embedding_of(model).weight.detach().clone()
    pruned = prune_vocabulary(model, tokenizer, CORPUS)
    kept = by_id(pruned)
    assert kept == [token for token in by_id(tokenizer) if token in pruned.get_vocab()]
    assert sorted(pruned.get_vocab().values()) == list(range(len(kept)))
    rows = before[[tokenizer.get_vocab()[token] for token in kept]]
    assert torch.equal(embedding_of(model).weight, rows)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_config_and_padding_follow(name: str) -> None:
    model, tokenizer = tiny(name)
    pruned = prune_vocabulary(model, tokenizer, CORPUS)
    embedding = embedding_of(model)
    assert model.config.vocab_size == embedding.num_embeddings == len(pruned)
    assert embedding.padding_idx == model.config.pad_token_id == pruned.pad_token_id
    for end in ("bos", "eos", "cls", "sep"):
        expected = getattr(pruned, f"{end}_token_id")
        assert getattr(model.config, f"{end}_token_id", expected) == expected


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_special_tokens_keep_their_parts(name: str) -> None:
    model, tokenizer = tiny(name)
    pruned = prune_vocabulary(model, tokenizer, CORPUS)
    assert pruned.special_tokens_map == tokenizer.special_tokens_map
    assert set(pruned.all_special_tokens) == set(tokenizer.all_special_tokens)
    assert None not in pruned.all_special_ids
    assert pruned.convert_ids_to_tokens(pruned.all_special_ids) == pruned.all_special_tokens


def test_additional_and_added_tokens_stay() -> None:
    tokenizer = BertTokenizer(vocab=word_pieces(BERT), extra_special_tokens=["[ENT]"])
    tokenizer.add_tokens(["covid-19"])
    pruned = prune(tokenizer, CORPUS)
    assert pruned.tokenize("the [ENT] covid-19") == ["the", "[ENT]", "covid-19"]
    assert pruned.extra_special_tokens == ["[ENT]"]


def test_settings_stay_and_the_given_tokenizer_does_not_change() -> None:
    tokenizer = BertTokenizer(
        vocab=word_pieces(BERT), model_max_length=77, padding_side="left", truncation_side="left"
    )
    tokenizer(CORPUS, padding=True, truncation=True, max_length=5)
    before = tokenizer.backend_tokenizer.to_str()
    pruned = prune(tokenizer, CORPUS)
    assert tokenizer.backend_tokenizer.to_str() == before
    assert pruned.model_max_length == 77
    assert (pruned.padding_side, pruned.truncation_side) == ("left", "left")
    assert tokens_of(pruned, CORPUS[0]) == tokens_of(tokenizer, CORPUS[0])


def test_token_that_only_pairs_need_stays() -> None:
    tokens = numbered(["a", "b", "<end>", "<between>"])
    backend = Tokenizer(models.WordLevel(tokens, unk_token="a"))
    names = [(token, tokens[token]) for token in ("<end>", "<between>")]
    backend.post_processor = processors.TemplateProcessing(
        single="$A <end>", pair="$A <between> $B <end>", special_tokens=names
    )
    pruned = prune(wrapped(backend), ["a"])
    assert by_id(pruned) == ["a", "<end>", "<between>"]
    assert pruned("a", "a")["input_ids"] == [0, 2, 0, 1]


def test_special_tokens_written_in_a_text_are_split_if_the_tokenizer_says_so() -> None:
    pieces = ["[", "]", "sep", "fox", "se", "##p"]
    tokenizer = bert_of(pieces, split_special_tokens=True)
    pruned = prune(tokenizer, ["a [SEP]"])
    assert pruned.tokenize("[SEP]") == tokenizer.tokenize("[SEP]") == ["[", "sep", "]"]
    assert "fox" not in pruned.get_vocab()


def test_unknown_token_is_the_same_in_classes_that_state_its_id(tmp_path: Path) -> None:
    # As in CamemBERT, whose first tokens are not used.
    first = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<s>", "</s>", "<mask>", "fox", "f"]
    tokenizer = XLMRobertaTokenizer(vocab=[(token, -float(i)) for i, token in enumerate(first)])
    pruned = prune(tokenizer, ["f"])
    pruned.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert "fox" not in again.get_vocab()
    assert again("☃")["input_ids"] == pruned("☃")["input_ids"]
    assert tokens_of(again, "☃") == tokens_of(tokenizer, "☃")


def test_used_tokens_by_hand() -> None:
    tokenizer = bert_of(["run", "##s", "fox", "x", "##x"])
    names = by_id(tokenizer)
    used = used_tokens(tokenizer, iter(["runs", "run x"]))
    assert {names[number] for number in used} == {"[CLS]", "[SEP]", "run", "##s", "x"}


def test_texts_count_to_their_end() -> None:
    tokenizer = bert_of(["run", "fox"])
    tokenizer("fox", truncation=True, max_length=3)
    assert tokenizer.get_vocab()["fox"] in used_tokens(tokenizer, ["run " * 600 + "fox"])


def test_lists_of_words_are_split_as_words() -> None:
    tokenizer = bert_of(["run", "##s", "fox", "ab", "a", "##bc", "x"])
    names = by_id(tokenizer)
    used = used_tokens(tokenizer, [["runs", "abc"], "x"])
    # "abc" is unknown, for "ab" matches first: without it, "a ##bc" would.
    expected = {"[CLS]", "[SEP]", "[UNK]", "run", "##s", "ab", "x"}
    assert {names[number] for number in used} == expected


def test_words_in_lists_have_the_tokens_of_running_text() -> None:
    tokenizer = roberta_tokenizer()
    used = used_tokens(tokenizer, [["lazy", "newest"]])
    assert used == used_tokens(tokenizer, [" lazy newest"])
    assert used != used_tokens(tokenizer, ["lazy", "newest"])


def test_positions_do_not_move_where_they_are_counted_from_the_padding() -> None:
    tokenizer = roberta_tokenizer(padding_at=300)
    sizes = SIZES | {"max_position_embeddings": 400}
    config = RobertaConfig(vocab_size=len(tokenizer), pad_token_id=300, **sizes)
    model = RobertaModel(config).train(mode=False)
    expected = hidden_states(model, tokenizer, CORPUS)
    pruned = prune_vocabulary(model, tokenizer, CORPUS)
    assert pruned.pad_token_id == 300
    assert len(pruned) < len(tokenizer)
    assert torch.equal(hidden_states(model, pruned, CORPUS), expected)


def test_id_that_no_token_has_leaves_the_config() -> None:
    tokenizer = bert_of(["run", "fox"])
    config = BertConfig(vocab_size=20, bos_token_id=19, eos_token_id=[3, 19], **SIZES)
    model = BertModel(config)
    prune_vocabulary(model, tokenizer, ["run"])
    assert model.config.bos_token_id is None
    assert model.config.eos_token_id == [3]


def test_pruning_twice_changes_nothing_more() -> None:
    model, tokenizer = tiny("roberta")
    once = prune_vocabulary(model, tokenizer, CORPUS)
    weight = embedding_of(model).weight.detach().clone()
    twice = prune_vocabulary(model, once, CORPUS)
    assert twice.get_vocab() == once.get_vocab()
    assert torch.equal(embedding_of(model).weight, weight)


def test_order_of_the_texts_does_not_matter() -> None:
    one = prune_vocabulary(*tiny("deberta-v3"), CORPUS)
    other: Any = prune_vocabulary(*tiny("deberta-v3"), reversed(CORPUS * 2))
    assert cast("Any", one).backend_tokenizer.to_str() == other.backend_tokenizer.to_str()


@pytest.mark.parametrize("trainable", [True, False])
def test_frozen_embeddings_stay_frozen(*, trainable: bool) -> None:
    model, tokenizer = tiny("bert")
    embedding_of(model).weight.requires_grad_(trainable)
    prune_vocabulary(model, tokenizer, CORPUS)
    assert embedding_of(model).weight.requires_grad is trainable


def test_half_precision_keeps_the_right_rows() -> None:
    tokenizer = bert_of([f"word{index}" for index in range(3000)])
    model = encoder_for(tokenizer).bfloat16()
    last = embedding_of(model).weight[-1].detach().clone()
    pruned = prune_vocabulary(model, tokenizer, ["word2999"])
    assert torch.equal(embedding_of(model).weight[pruned.get_vocab()["word2999"]], last)


def test_embedded_encoder_keeps_the_words_of_the_corpus() -> None:
    encoder = from_scratch(layers=1, hidden=8, heads=2, intermediate=16)
    encoder.model.train(mode=False)
    texts = [" ".join(WORDS[:9]), "the fox-2 runs"]
    expected = hidden_states(encoder.model, encoder.tokenizer, texts)
    pruned = prune_vocabulary(encoder.model, encoder.tokenizer, texts)
    assert torch.equal(hidden_states(encoder.model, pruned, texts), expected)
    assert len(pruned) < len(character_tokenizer())
    new = next(word for word in WORDS if word not in pruned.get_vocab())
    assert pruned.tokenize(new) == [new[0], *(f"##{character}" for character in new[1:])]


@pytest.mark.skipif(
    not (MINILM.is_dir() and RTE.is_file()), reason=f"there is no encoder or data in {SHARED}"
)
def test_pretrained_encoder_on_real_texts() -> None:
    import pyarrow.parquet

    texts = pyarrow.parquet.read_table(RTE)["sentence1"].to_pylist()[:300]
    model = AutoModel.from_pretrained(MINILM, add_pooling_layer=False)
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    expected = hidden_states(model, tokenizer, texts[:8])
    pruned = prune_vocabulary(model, tokenizer, texts)
    assert len(pruned) < len(tokenizer) / 2
    assert torch.equal(hidden_states(model, pruned, texts[:8]), expected)
    assert [tokens_of(pruned, text) for text in texts] == [tokens_of(tokenizer, t) for t in texts]


def test_no_texts_are_refused_before_anything_changes() -> None:
    model, tokenizer = tiny("bert")
    before = embedding_of(model).weight
    with pytest.raises(ValueError, match=r"^`texts` is empty\.$"):
        prune_vocabulary(model, tokenizer, [])
    assert embedding_of(model).weight is before


def test_single_string_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^`texts` must be an iterable of texts, but is a single"):
        used_tokens(TOKENIZERS["bert"], "the fox")


def test_slow_tokenizer_is_refused() -> None:
    class Slow(PythonBackend):
        @property
        def vocab_size(self) -> int:
            return 1

        def get_vocab(self) -> dict[str, int]:
            return {"a": 0}

    with pytest.raises(TypeError, match=r"^A fast tokenizer .* but this is a Slow"):
        prune_vocabulary(tiny("bert")[0], Slow(), ["a"])  # type: ignore[no-untyped-call]


def test_kind_of_tokenizer_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprune.export.tokenizer.MODELS", {"Unigram": object})
    with pytest.raises(ValueError, match=r"must be one of Unigram, but is a WordPiece\.$"):
        used_tokens(TOKENIZERS["bert"], ["a"])


def test_tokenizer_with_more_tokens_than_embeddings_is_refused() -> None:
    model, tokenizer = tiny("bert", spare_rows=-1)
    largest = len(tokenizer) - 1
    message = rf"but has {largest}, and the largest token id is {largest}\.$"
    with pytest.raises(ValueError, match=message):
        prune_vocabulary(model, tokenizer, CORPUS)


def test_head_that_predicts_tokens_is_refused() -> None:
    tokenizer = TOKENIZERS["bert"]
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **SIZES))
    with pytest.raises(ValueError, match=r"BertForMaskedLM has a head that predicts tokens"):
        prune_vocabulary(model, tokenizer, CORPUS)
