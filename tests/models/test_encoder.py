import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from multiprune.models.encoder import Encoder, pretrained
from multiprune.models.from_scratch import character_tokenizer, from_scratch
from multiprune.tasks.synthetic import WORDS

TOKENIZER = character_tokenizer()
SIZES: dict[str, Any] = {
    "vocab_size": len(TOKENIZER),
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 24,
}


def tiny() -> Encoder:
    return from_scratch(layers=2, hidden=8, heads=2, intermediate=16)


def saved(folder: Path, model: PreTrainedModel) -> str:
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return str(folder)


def test_one_from_scratch_has_the_sizes_asked_for() -> None:
    encoder = tiny()
    vocabulary, hidden, intermediate = len(encoder.tokenizer), 8, 16
    norm = 2 * hidden
    embeddings = (vocabulary + 512 + 2) * hidden + norm
    attention = 4 * (hidden * hidden + hidden) + norm
    forward = 2 * hidden * intermediate + intermediate + hidden + norm
    count = sum(parameter.numel() for parameter in encoder.model.parameters())
    assert count == embeddings + 2 * (attention + forward)
    assert encoder.model.config.num_attention_heads == 2


def test_one_from_scratch_suits_tokenizers_with_gaps_and_without_a_length(tmp_path: Path) -> None:
    words = {"[PAD]": 0, "[UNK]": 1, "dog": 9}
    pieces = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    kind: Any = PreTrainedTokenizerFast
    kind(tokenizer_object=pieces, pad_token="[PAD]").save_pretrained(tmp_path)
    shape: dict[str, Any] = {"layers": 1, "hidden": 8, "heads": 2, "intermediate": 16}
    encoder = from_scratch(**shape, tokenizer=str(tmp_path))
    assert encoder.model.get_input_embeddings().weight.shape == (10, 8)
    assert encoder.max_length == 512
    kind(tokenizer_object=pieces).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"token for padding, but .*tokenizer\.json has none"):
        from_scratch(**shape, tokenizer=str(tmp_path))


def test_one_from_scratch_has_no_pooler() -> None:
    assert not [name for name in tiny().model.state_dict() if "pooler" in name]


def test_dropout_reaches_hidden_states_and_attention() -> None:
    config = from_scratch(layers=1, hidden=8, heads=2, intermediate=16, dropout=0.3).model.config
    assert config.hidden_dropout_prob == 0.3
    assert config.attention_probs_dropout_prob == 0.3


def test_positions_can_begin_as_sines_and_cosines() -> None:
    encoder = from_scratch(
        layers=1,
        hidden=8,
        heads=2,
        intermediate=16,
        position_amplitude=0.5,
        initializer_range=0.3,
    )
    weights = encoder.model.state_dict()
    positions = weights["embeddings.position_embeddings.weight"]
    for position in (0, 1, 7, 300):
        for pair in range(4):
            angle = position / 10000 ** (2 * pair / 8)
            expected = [0.5 * math.sin(angle), 0.5 * math.cos(angle)]
            assert positions[position, 2 * pair : 2 * pair + 2].tolist() == pytest.approx(
                expected, abs=1e-4
            )
    drawn = weights["embeddings.word_embeddings.weight"][1:]
    assert float(drawn.std()) == pytest.approx(0.3, rel=0.1)


def test_weights_from_scratch_follow_the_global_seed() -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(tiny().model.state_dict())
    one, same, other = states
    assert all(torch.equal(one[name], same[name]) for name in one)
    name = "encoder.layer.0.intermediate.dense.weight"
    assert not torch.equal(one[name], other[name])


def test_tokenizer_knows_every_word_of_the_embedded_tasks() -> None:
    unknown = [word for word in WORDS if TOKENIZER.tokenize(word) != [word]]
    assert WORDS
    assert unknown == []


def test_unknown_words_become_characters() -> None:
    assert TOKENIZER.tokenize("The fox-2, Émile!") == [
        *["the", "f", "##o", "##x", "-", "2", ","],
        *["e", "##m", "##i", "##l", "##e", "!"],
    ]


def test_tokens_have_different_numbers_and_padding_is_0() -> None:
    vocabulary = TOKENIZER.get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(TOKENIZER)))
    assert TOKENIZER.pad_token_id == vocabulary["[PAD]"] == 0


def test_pretrained_loads_a_folder_without_its_pooler(tmp_path: Path) -> None:
    model = BertModel(BertConfig(**SIZES))
    assert [name for name in model.state_dict() if "pooler" in name]
    encoder = pretrained(saved(tmp_path / "bert", model))
    state = encoder.model.state_dict()
    assert not [name for name in state if "pooler" in name]
    assert set(state) == {name for name in model.state_dict() if "pooler" not in name}
    assert all(torch.equal(state[name], model.state_dict()[name]) for name in state)
    text = "the fox runs"
    assert encoder.tokenizer(text)["input_ids"] == TOKENIZER(text)["input_ids"]


def test_pretrained_loads_an_architecture_that_has_no_pooler(tmp_path: Path) -> None:
    config = DistilBertConfig(
        vocab_size=len(TOKENIZER), dim=8, hidden_dim=16, n_heads=2, n_layers=1
    )
    model = DistilBertModel(config)
    state = pretrained(saved(tmp_path / "distilbert", model)).model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_dropout_of_a_pretrained_encoder_can_be_replaced(architecture: str, tmp_path: Path) -> None:
    model: PreTrainedModel
    if architecture == "bert":
        model = tiny().model
    else:
        model = DistilBertModel(
            DistilBertConfig(vocab_size=200, dim=8, n_layers=1, n_heads=2, hidden_dim=16)
        )
    folder = saved(tmp_path / architecture, model)
    dropouts = [
        module.p
        for module in pretrained(folder, dropout=0.25).model.modules()
        if isinstance(module, torch.nn.Dropout)
    ]
    assert dropouts
    assert set(dropouts) == {0.25}


def test_one_from_scratch_survives_a_round_trip_through_a_folder(tmp_path: Path) -> None:
    encoder = tiny()
    again = pretrained(saved(tmp_path / "from_scratch", encoder.model))
    for one in (encoder, again):
        one.model.train(mode=False)
    tokens = encoder.tokenizer(["the fox runs"], return_tensors="pt")
    with torch.no_grad():
        expected = encoder.model(**tokens).last_hidden_state
        assert torch.equal(again.model(**tokens).last_hidden_state, expected)
    assert again.max_length == encoder.max_length == 512


@pytest.mark.parametrize("make", [False, True], ids=["no folder", "no model in it"])
def test_missing_folder_is_named(tmp_path: Path, *, make: bool) -> None:
    folder = tmp_path / "model"
    if make:
        folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"`encoder\.path` must be a folder") as error:
        pretrained(str(folder))
    assert str(folder / "config.json") in str(error.value)


@pytest.mark.parametrize("path", ["./nothing", "../nothing", "~/nothing", "/nothing/at/all"])
def test_path_that_looks_like_a_folder_is_not_looked_up_on_the_hub(path: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
        pretrained(path)


def test_hub_out_of_reach_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(source: str, **_: Any) -> None:
        raise OSError(f"no route to {source}\nand more")

    monkeypatch.setattr(AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(ValueError, match=r"'owner/bert' is not: no route to owner/bert$"):
        pretrained("owner/bert")


@pytest.mark.parametrize(("of_tokenizer", "expected"), [(512, 24), (16, 16), (10**30, 24)])
def test_max_length_is_the_smaller_of_positions_and_tokenizer(
    of_tokenizer: int, expected: int
) -> None:
    tokenizer = character_tokenizer()
    tokenizer.model_max_length = of_tokenizer
    model = BertModel(BertConfig(**SIZES), add_pooling_layer=False)
    assert Encoder(model=model, tokenizer=tokenizer).max_length == expected


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "mpnet"])
def test_positions_that_begin_behind_padding_leave_fewer(name: str) -> None:
    config = AutoConfig.for_model(name, **SIZES, pad_token_id=1)
    tokenizer = character_tokenizer()
    tokenizer.model_max_length = 10**30
    kind: Any = AutoModel
    model = kind.from_config(config).eval()
    longest = Encoder(model=model, tokenizer=tokenizer).max_length
    assert longest == 24 - 2
    model(torch.full((1, longest), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, longest + 1), 5))


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_weights_stored_in_half_precision_are_trained_in_single(
    stored: torch.dtype, tmp_path: Path
) -> None:
    model = tiny().model
    torch.nn.Module.to(model, stored)
    again = pretrained(saved(tmp_path, model)).model
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert other.dtype == torch.float32
        assert torch.equal(one.float(), other)


@pytest.mark.parametrize("source", ["from_scratch", "pretrained"])
def test_frozen_embeddings_are_all_tables_and_nothing_else(source: str, tmp_path: Path) -> None:
    if source == "from_scratch":
        encoder = from_scratch(layers=1, hidden=8, heads=2, intermediate=16, freeze_embeddings=True)
    else:
        path = saved(tmp_path, BertModel(BertConfig(**SIZES)))
        encoder = pretrained(path, freeze_embeddings=True)
    frozen = {name for name, one in encoder.model.named_parameters() if not one.requires_grad}
    assert frozen == {
        f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")
    }


def test_embeddings_are_trained_unless_frozen() -> None:
    assert all(parameter.requires_grad for parameter in tiny().model.parameters())


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(tmp_path: Path) -> None:
    largest = len(character_tokenizer()) - 1
    for rows in (largest, largest + 1):
        config = BertConfig(
            vocab_size=rows,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
        )
        BertModel(config).save_pretrained(tmp_path)
        character_tokenizer().save_pretrained(tmp_path)
        if rows > largest:
            assert pretrained(str(tmp_path))
            continue
        with pytest.raises(ValueError, match=rf"has {rows} embeddings, but .* up to {largest}"):
            pretrained(str(tmp_path))
