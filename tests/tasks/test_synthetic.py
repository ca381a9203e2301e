import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from multiprune.tasks.synthetic import (
    QUANTITY_RANGE,
    ROLE_TAGS,
    WORDS,
    Columns,
    agreement,
    entailment,
    quantity,
    roles,
)

TASKS = (agreement, entailment, quantity, roles)
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

NOUN = "(?:animal|bear|cat|cow|dog|goat|horse|pig|rabbit)s?"
COLOUR = "(?:black|blue|brown|green|red|white)"
VERB = r"\w+ed"
PHRASE = rf"(?:the|many|{'|'.join(NUMBERS)}) (?:{COLOUR} )?{NOUN}"
MODIFIER = rf" (?:(?:behind|beside|near) {PHRASE}|that {VERB} {PHRASE}|that {PHRASE} {VERB})"
CLAUSE = re.compile(
    rf"({PHRASE})(?:{MODIFIER})? (?:({VERB}) |(?:was|were) ({VERB}) by )({PHRASE})(?:{MODIFIER})?"
)
SUBJECT_AND_VERB = re.compile(
    rf"(?:(?:behind|beside|near) {PHRASE} )?({PHRASE})(?:{MODIFIER})* (\w+)"
)


def parse(clause: str) -> tuple[re.Match[str], int, int, int]:
    """Match a transitive clause; return the groups with its agent, action and patient."""
    match = CLAUSE.fullmatch(clause)
    assert match is not None, clause
    return (match, 1, 2, 4) if match[2] else (match, 4, 3, 1)


def agrees(sentence: str) -> bool:
    match = SUBJECT_AND_VERB.fullmatch(sentence)
    assert match is not None, sentence
    return match[1].endswith("s") != match[2].endswith("s")


def who_did_what(clause: str) -> list[str]:
    match, *parts = parse(clause)
    return [match[part].split()[-1] for part in parts]


def follows(premise: str, hypothesis: str) -> bool:
    """Whether both have the same verb, and equally many act and are acted on in both."""
    stated, claimed = who_did_what(premise), who_did_what(hypothesis)
    return [word.endswith("s") for word in stated] == [word.endswith("s") for word in claimed] and (
        stated[1] == claimed[1]
    )


def how_many(question: str) -> int:
    query, clause = question.removeprefix("how many ").split(" when ")
    match, agent, action, patient = parse(clause)
    assert query.split()[-1] == match[action]
    asked = match[patient] if query.startswith("were ") else match[agent]
    return NUMBERS.index(asked.split()[0])


def tag(tokens: list[str]) -> list[str]:
    match, *parts = parse(" ".join(tokens))
    tags = ["other"] * len(tokens)
    for name, part in zip(("agent", "action", "patient"), parts, strict=True):
        start = len(match.string[: match.start(part)].split())
        length = len(match[part].split())
        tags[start : start + length] = [name] * length
    return tags


def texts(columns: Columns, name: str) -> list[str]:
    return [str(text) for text in columns[name]]


def labels(columns: Columns) -> list[float]:
    return [float(str(label)) for label in columns["label"]]


def tagged(columns: Columns) -> Iterator[tuple[list[str], list[str]]]:
    for tokens, tags in zip(columns["tokens"], columns["tags"], strict=True):
        assert isinstance(tokens, list)
        assert isinstance(tags, list)
        yield tokens, tags


def words_of(columns: Columns) -> set[str]:
    if "tokens" in columns:
        return {word for tokens, _ in tagged(columns) for word in tokens}
    fields = [name for name in columns if name != "label"]
    return {word for name in fields for text in texts(columns, name) for word in text.split()}


def bags_of_words(task: Callable[[int, int], Columns]) -> tuple[csr_matrix, np.ndarray]:
    """Count each word of 4,000 rows, separately in each sentence of a pair."""
    columns = task(4000, 0)
    fields = [name for name in columns if name != "label"]
    counts = [CountVectorizer().fit_transform(texts(columns, name)) for name in fields]
    return hstack(counts).tocsr(), np.array(labels(columns))


@pytest.mark.parametrize("task", TASKS)
def test_rows_depend_on_the_seed_alone(task: Callable[[int, int], Columns]) -> None:
    assert task(50, 1) == task(50, 1)
    assert task(50, 1) != task(50, 2)


@pytest.mark.parametrize("task", TASKS)
def test_columns_have_as_many_rows_as_asked(task: Callable[[int, int], Columns]) -> None:
    assert {len(column) for column in task(37, 0).values()} == {37}


def test_words_are_exactly_those_that_the_tasks_emit() -> None:
    emitted = set[str]().union(*(words_of(task(1000, 0)) for task in TASKS))

    assert list(WORDS) == sorted(emitted)


@pytest.mark.parametrize("task", [agreement, entailment, quantity])
@pytest.mark.parametrize("count", [101, 804])
def test_labels_are_balanced_to_within_one_row(
    task: Callable[[int, int], Columns], count: int
) -> None:
    frequencies = Counter(labels(task(count, 3))).values()

    assert max(frequencies) - min(frequencies) <= 1


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("the dog near the cats sleeps", True),
        ("the dog near the cats sleep", False),
        ("behind the dog the red cats that the pig followed run", True),
        ("the dogs that chased the cow beside the pig jumps", False),
    ],
)
def test_the_agreement_checker_reads_hand_made_sentences(sentence: str, expected: bool) -> None:
    assert agrees(sentence) == expected


@pytest.mark.parametrize(
    ("clause", "expected"),
    [
        ("the red dog chased the cat", ["dog", "chased", "cat"]),
        ("the red dog was chased by the cat", ["cat", "chased", "dog"]),
        ("the dog that the pig chased helped the cat", ["dog", "helped", "cat"]),
        ("the dog that chased the pig was helped by the cat", ["cat", "helped", "dog"]),
    ],
)
def test_the_clause_parser_reads_hand_made_sentences(clause: str, expected: list[str]) -> None:
    assert who_did_what(clause) == expected


@pytest.mark.parametrize(
    ("premise", "hypothesis", "expected"),
    [
        ("the red dog chased the cats", "one animal chased many animals", True),
        ("the red dog chased the cats", "many animals chased one animal", False),
        ("the dog near the pig was chased by the cats", "many animals chased one animal", True),
        (
            "the dogs that the cow helped were chased by the cat",
            "many animals chased one animal",
            False,
        ),
        ("the red dog chased the cats", "one animal helped many animals", False),
    ],
)
def test_the_entailment_checker_reads_hand_made_pairs(
    premise: str, hypothesis: str, expected: bool
) -> None:
    assert follows(premise, hypothesis) == expected


def test_agreement_labels_follow_from_the_grammar() -> None:
    columns = agreement(1000, 0)

    assert [agrees(text) for text in texts(columns, "sentence")] == labels(columns)


def test_entailment_labels_follow_from_the_grammar() -> None:
    columns = entailment(1000, 0)
    pairs = zip(texts(columns, "sentence1"), texts(columns, "sentence2"), strict=True)

    assert [follows(premise, hypothesis) for premise, hypothesis in pairs] == labels(columns)


def test_quantity_labels_follow_from_the_grammar() -> None:
    columns = quantity(1000, 0)

    assert [how_many(text) for text in texts(columns, "sentence")] == labels(columns)
    assert (min(labels(columns)), max(labels(columns))) == QUANTITY_RANGE


def test_roles_follow_from_the_grammar() -> None:
    for tokens, tags in tagged(roles(1000, 0)):
        assert tags == tag(tokens)
        assert set(tags) <= set(ROLE_TAGS)


def test_hypotheses_differ_in_the_verb_and_the_order_alone() -> None:
    for hypothesis in texts(entailment(200, 0), "sentence2"):
        nouns = [word for word in hypothesis.split() if not word.endswith("ed")]
        assert sorted(nouns) == ["animal", "animals", "many", "one"]


@pytest.mark.parametrize("task", [agreement, entailment])
def test_a_bag_of_words_does_not_classify(task: Callable[[int, int], Columns]) -> None:
    bags, classes = bags_of_words(task)

    model = LogisticRegression(max_iter=1000).fit(bags[:2000], classes[:2000])

    assert model.score(bags[2000:], classes[2000:]) < 0.58


def test_a_bag_of_words_does_not_predict_quantities() -> None:
    bags, amounts = bags_of_words(quantity)

    model = Ridge().fit(bags[:2000], amounts[:2000])

    assert model.score(bags[2000:], amounts[2000:]) < 0.05


def test_the_identity_of_a_word_does_not_tell_its_role() -> None:
    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for tokens, tags in tagged(roles(2000, 0)):
        for word, role in zip(tokens, tags, strict=True):
            seen[word][role] += 1

    is_right = [
        seen[word].most_common(1)[0][0] == role
        for tokens, tags in tagged(roles(2000, 1))
        for word, role in zip(tokens, tags, strict=True)
    ]

    assert np.mean(is_right) < 0.6
