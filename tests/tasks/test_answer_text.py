from __future__ import annotations

from random import Random

import pytest
from torchmetrics.functional.text import squad as official

from multiprune.metrics import AnswerF1, ExactMatch
from multiprune.tasks.answer_text import mlqa, squad

WORDS = ["The", "a", "an", "dog", "Dog's", "co-op", "1,000", "(red)", "the,cat", "«Über»", "  "]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Dog's a pet.", "dogs pet"),
        ("theatre, an Anthem", "theatre anthem"),
        ("1,000 (U.S.)\tdollars\n", "1000 us dollars"),
        ("An", ""),
        # Only ASCII punctuation goes, and only English articles.
        ("der «Hund»", "der «hund»"),
    ],
)
def test_squad_normalisation(text: str, expected: str) -> None:
    assert squad(text, None) == squad(text, "de") == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "The «Dog's» a pet — an end.", "dogs pet end"),
        ("en", "der Hund", "der hund"),
        ("de", "Der Hund, eines «Mannes» the", "hund mannes the"),
        ("es", "¿Los perros y unas casas?", "perros y casas"),
        ("hi", "दिल्ली। 1947", "दिल्ली 1947"),
        ("vi", "Những con mèo của tôi", "con mèo tôi"),
        ("zh", "2008年,北京 Olympic Games。", "2008 年 北 京 olympic games"),
        # The letters of the article go wherever they stand.
        ("ar", "في الكتاب", "في كتاب"),
        ("ar", "بال", "ب"),
    ],
)
def test_mlqa_normalisation(language: str, text: str, expected: str) -> None:
    assert mlqa(text, language) == expected


@pytest.mark.parametrize("language", ["sw", None])
def test_language_that_mlqa_does_not_have_is_refused(language: str | None) -> None:
    with pytest.raises(ValueError, match=rf"ar, de, en, es, hi, vi, zh, but .* is {language}\."):
        mlqa("text", language)


def test_best_of_several_right_answers_counts() -> None:
    # One word of two, of three: 2 * 1 / (2 + 3); and both of two, of three: 2 * 2 / (2 + 3).
    answers, right = ["red dog"], [["red green blue", "the", "big red dog"]]
    assert AnswerF1()(answers, right) == pytest.approx(0.8)
    assert ExactMatch()(answers, right) == 0
    assert ExactMatch()(["red dog"], [["dog", "red dog"]]) == 1


def test_words_are_common_as_often_as_both_have_them() -> None:
    assert AnswerF1()(["dog dog cat"], [["dog bird"]]) == pytest.approx(2 * 1 / 5)
    assert AnswerF1()(["dog dog cat"], [["dog dog"]]) == pytest.approx(2 * 2 / 5)


def test_nothing_in_common_is_0_and_a_mean_is_over_questions() -> None:
    assert AnswerF1()(["cat", "dog"], [["dog"], ["dog"]]) == 0.5
    assert ExactMatch()(["cat", "dog"], [["dog"], ["dog"]]) == 0.5
    # As in the scripts: two answers of articles only are the same, and have no word in common.
    assert (ExactMatch()([""], [[""]]), AnswerF1()([""], [[""]])) == (1, 0)


def test_metrics_are_those_of_the_official_script() -> None:
    rng = Random(0)

    def text() -> str:
        # Never of articles alone, which torchmetrics takes for a right answer as SQuAD 2 does.
        return " ".join([rng.choice(["dog", "red"]), *rng.choices(WORDS, k=rng.randint(0, 3))])

    answers = [text() for _ in range(200)]
    right = [[text() for _ in range(rng.randint(1, 3))] for _ in answers]
    expected = official(
        [{"id": str(row), "prediction_text": one} for row, one in enumerate(answers)],
        [
            {"id": str(row), "answers": {"text": several, "answer_start": [0] * len(several)}}
            for row, several in enumerate(right)
        ],
    )
    ours = [squad(one, "en") for one in answers]
    theirs = [[squad(one, "en") for one in several] for several in right]
    assert 100 * ExactMatch()(ours, theirs) == pytest.approx(float(expected["exact_match"]))
    assert 100 * AnswerF1()(ours, theirs) == pytest.approx(float(expected["f1"]))
    assert 0 < ExactMatch()(ours, theirs) < AnswerF1()(ours, theirs) < 1
