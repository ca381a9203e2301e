"""Tokenizers as they are published: of SentencePiece, without padding, or missing."""

from __future__ import annotations

import importlib.util
import io
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest
import sentencepiece
from tiny_encoders import CONFIGS
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import DebertaV2ForMaskedLM, PreTrainedTokenizerFast

from multiprune.models.encoder import pretrained
from multiprune.models.pretrained_tokenizer import ensure_padding, pretrained_tokenizer
from multiprune.tasks.synthetic import WORDS

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "the cat runs"


@pytest.fixture
def deberta(tmp_path: Path) -> tuple[Path, sentencepiece.SentencePieceProcessor]:
    """Write a DeBERTa-v3 with the files that are published of one."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS)] * 9),
        model_writer=written,
        vocab_size=80,
        hard_vocab_limit=False,
        minloglevel=2,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
    )
    (tmp_path / "spm.model").write_bytes(written.getvalue())
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    config: Any = CONFIGS["deberta"]()
    config.vocab_size = 120
    DebertaV2ForMaskedLM(config).save_pretrained(tmp_path)
    return tmp_path, sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


def test_deberta_as_published_reads_as_sentencepiece_does(
    deberta: tuple[Path, sentencepiece.SentencePieceProcessor],
) -> None:
    folder, pieces = deberta
    tokenizer = pretrained(str(folder)).tokenizer
    assert tokenizer(TEXT)["input_ids"] == [1, *pieces.encode(TEXT), 2]


def test_sentencepiece_that_is_missing_is_named(
    deberta: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    without = lambda name, *rest: None if name == "sentencepiece" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", without)
    monkeypatch.setattr("multiprune.models.pretrained_tokenizer.find_spec", without)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ValueError, match=r"pip install 'multiprune\[sentencepiece\]'\.$"):
        pretrained(str(deberta[0]))


def without_padding(folder: Path, **special: str) -> Path:
    words = {"<end>": 0, "<unk>": 1, "cat": 2}
    made = Tokenizer(WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    kind: Any = PreTrainedTokenizerFast
    kind(tokenizer_object=made, **special).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("special", "expected"),
    [({"eos_token": "<end>", "unk_token": "<unk>"}, "<end>"), ({"unk_token": "<unk>"}, "<unk>")],
)
def test_another_token_stands_for_padding_and_is_named(
    special: dict[str, str], expected: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tokenizer = pretrained_tokenizer(without_padding(tmp_path, **special))
    for _ in range(2):
        ensure_padding(tokenizer, str(tmp_path))
    assert tokenizer.pad_token == expected
    batch = tokenizer(["cat", "cat cat"], padding=True)
    assert batch["input_ids"][0] == [2, tokenizer.pad_token_id]
    assert batch["attention_mask"][0] == [1, 0]
    assert caplog.messages == [
        f"The tokenizer in {tmp_path} has no token for padding: {expected} is used."
    ]


def test_no_token_that_can_pad_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no token for padding, and neither"):
        ensure_padding(pretrained_tokenizer(without_padding(tmp_path)), str(tmp_path))


@pytest.mark.parametrize("architecture", ["bert", "xlm_roberta", "deberta", "modernbert"])
def test_a_folder_without_a_tokenizer_is_refused(architecture: str, tmp_path: Path) -> None:
    CONFIGS[architecture]().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds no vocabulary|cannot be loaded"):
        pretrained_tokenizer(tmp_path)
