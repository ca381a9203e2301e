"""Tokenizers made from texts, held against what the texts are."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet
import pytest
from transformers import AutoTokenizer

from multiprune.cli import main
from multiprune.data.tokenizer import KINDS, train_tokenizer
from multiprune.models.from_scratch import from_scratch
from multiprune.tasks.masking import mask_vocabulary
from multiprune.tasks.packing import frame_of, tokenized

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

TEXTS = ["The lowest tower is lower than the newest one.", "Newer towers: wider, wide, widest!"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.txt"
    file.write_text("\n".join([*TEXTS * 20, ""]))
    return file


def made(corpus: Path, kind: str, size: int = 400, **options: bool) -> PreTrainedTokenizerBase:
    return train_tokenizer([corpus], kind=kind, size=size, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_loaded_as_it_was_made_and_knows_its_texts(
    kind: str, corpus: Path, tmp_path: Path
) -> None:
    main(["tokenizer", str(corpus), "--kind", kind, "--size", "400", "--out", str(tmp_path / "t")])
    loaded = AutoTokenizer.from_pretrained(tmp_path / "t")
    tokenizer = made(corpus, kind)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert len(loaded) <= 400
    for text in TEXTS:
        ids = loaded(text)["input_ids"]
        assert ids == tokenizer(text)["input_ids"]
        assert loaded.unk_token_id not in ids
        assert (ids[0], ids[-1]) == (loaded.cls_token_id, loaded.sep_token_id)
    assert loaded.model_max_length == 512
    # Frequent words have become tokens.
    assert len(loaded(TEXTS[0], add_special_tokens=False)["input_ids"]) < 20


def test_special_tokens_have_the_numbers_that_bert_and_roberta_expect(corpus: Path) -> None:
    bert, roberta = (made(corpus, kind) for kind in ("wordpiece", "bpe"))
    assert bert.convert_ids_to_tokens([*range(5)]) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert bert.model_input_names == ["input_ids", "token_type_ids", "attention_mask"]
    names = [roberta.convert_ids_to_tokens(number) for number in range(5)]
    assert names == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert roberta.pad_token_id == 1
    # A pair has two separators between its texts, as RoBERTa's.
    assert roberta("tower", "wide")["input_ids"].count(2) == 3
    assert "token_type_ids" not in roberta("tower")


def test_bytes_make_every_text_known(corpus: Path) -> None:
    tokenizer = made(corpus, "bpe")
    text = "Ünïcode 漢字 🙂"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
def test_capital_letters_make_a_difference_unless_they_are_lowered(kind: str, corpus: Path) -> None:
    for lowercase in (False, True):
        tokenizer = made(corpus, kind, lowercase=lowercase)
        same = tokenizer("Tower")["input_ids"] == tokenizer("tower")["input_ids"]
        assert same is lowercase


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_tokenizer_in_another_process(
    kind: str, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.txt"
    # More characters than a vocabulary takes, all equally frequent.
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + 1100)))
    corpus.write_text(f"{characters}\n" + "\n".join(TEXTS))
    code = "import sys; from multiprune.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "tokenizer", str(corpus), "--kind", kind]
    vocabularies = []
    for number in range(2):
        out = tmp_path / str(number)
        subprocess.run([*command, "--size", "3000", "--out", str(out)], check=True)
        vocabularies.append(json.loads((out / "tokenizer.json").read_text()))
    assert vocabularies[0] == vocabularies[1]


def test_words_and_special_tokens_are_known_to_masked_language_modelling(corpus: Path) -> None:
    tokenizer = made(corpus, "bpe", size=300)
    frame = frame_of(tokenizer, 16)
    assert (frame.before, frame.behind, frame.between) == ([0], [2], 2)
    (text,) = tokenized(["lower towers"], tokenizer)
    pieces = tokenizer.convert_ids_to_tokens(text.tokens.tolist())
    begins = [number for number, piece in enumerate(pieces) if piece.startswith("Ġ")]
    assert len(begins) == 1
    assert text.words.tolist() == [0] * begins[0] + begins * (len(pieces) - begins[0])
    assert not set(mask_vocabulary(tokenizer).ordinary.tolist()) & {0, 1, 2, 3, 4}


def test_an_untrained_encoder_takes_it(corpus: Path, tmp_path: Path) -> None:
    made(corpus, "wordpiece").save_pretrained(tmp_path / "t")
    sizes: dict[str, Any] = {"layers": 1, "hidden": 8, "heads": 2, "intermediate": 8}
    encoder = from_scratch(**sizes, tokenizer=str(tmp_path / "t"))
    assert encoder.model.config.vocab_size == len(encoder.tokenizer)
    assert encoder.max_length == 512
    with pytest.raises(FileNotFoundError, match=r"`encoder\.tokenizer` must be the folder"):
        from_scratch(**sizes, tokenizer=str(tmp_path / "elsewhere"))


def test_parquet_and_text_are_read_alike(corpus: Path, tmp_path: Path) -> None:
    table = pyarrow.table({"text": [*TEXTS * 20, None, ""], "source": ["x"] * 42})
    pyarrow.parquet.write_table(table, tmp_path / "corpus.parquet")
    other = made(tmp_path / "corpus.parquet", "wordpiece")
    assert other.get_vocab() == made(corpus, "wordpiece").get_vocab()


def test_wrong_input_is_one_sentence(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`kind` must be one of wordpiece, bpe, but is 'word'"):
        made(corpus, "word")
    with pytest.raises(ValueError, match=r"`size` must leave room .* but is 10"):
        made(corpus, "wordpiece", size=10)
    with pytest.raises(FileNotFoundError, match=r"none\.txt does not exist"):
        made(tmp_path / "none.txt", "bpe")
    (tmp_path / "empty.txt").write_text(" \n\n")
    with pytest.raises(ValueError, match=r"No texts .* in .*empty\.txt"):
        made(tmp_path / "empty.txt", "bpe")
    table = pyarrow.table({"line": TEXTS})
    pyarrow.parquet.write_table(table, tmp_path / "line.parquet")
    (tmp_path / "damaged.parquet").write_text("no")
    for name in ("line.parquet", "damaged.parquet"):
        with pytest.raises(ValueError, match="a parquet file with a column 'text'"):
            made(tmp_path / name, "bpe")
