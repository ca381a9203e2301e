"""Four small language tasks from one grammar, which a bag of words cannot solve.

Every task asks which words belong together: the words of a row are the same whatever its label is,
and only their order decides. The tasks share noun phrases, modifiers and transitive clauses, so
what one of them teaches an encoder helps the others.
"""

from random import Random
from typing import TypeAlias

Columns: TypeAlias = dict[str, list[str] | list[int] | list[float] | list[list[str]]]
"""A table as lists of equal length, by column name."""

ROLE_TAGS: tuple[str, ...] = ("other", "agent", "action", "patient")
"""The tags of `roles`; the first marks words outside the main clause's three parts."""

QUANTITY_RANGE: tuple[int, int] = (2, 9)
"""The smallest and the largest label of `quantity`."""

_NOUNS = {
    "bear": "bears",
    "cat": "cats",
    "cow": "cows",
    "dog": "dogs",
    "goat": "goats",
    "horse": "horses",
    "pig": "pigs",
    "rabbit": "rabbits",
}
_COLOURS = ("black", "blue", "brown", "green", "red", "white")
_PREPOSITIONS = ("behind", "beside", "near")
_TRANSITIVE_VERBS = ("chased", "followed", "helped", "pushed", "watched")
_INTRANSITIVE_VERBS = {"jumps": "jump", "runs": "run", "sings": "sing", "sleeps": "sleep"}
_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
_FUNCTION_WORDS = ("by", "how", "many", "one", "that", "the", "was", "were", "when")

WORDS: tuple[str, ...] = tuple(
    sorted(
        {
            *_NOUNS.keys(),
            *_NOUNS.values(),
            *_COLOURS,
            *_PREPOSITIONS,
            *_TRANSITIVE_VERBS,
            *_INTRANSITIVE_VERBS.keys(),
            *_INTRANSITIVE_VERBS.values(),
            *_NUMBERS,
            *_FUNCTION_WORDS,
            "animal",
            "animals",
        }
    )
)
"""Every word form of the four tasks, sorted."""


def agreement(count: int, seed: int) -> Columns:
    """Draw sentences whose verb agrees (1) or disagrees (0) in number with its subject.

    Another noun, the attractor, always has the other number and stands between subject and verb or
    in front of both. Columns: ``sentence``, ``label``.
    """
    rng = Random(seed)
    labels = _balanced(rng, count, (0, 1))
    return {"sentence": [_agreement_sentence(rng, label) for label in labels], "label": labels}


def entailment(count: int, seed: int) -> Columns:
    """Draw pairs whose second sentence follows (1) or does not follow (0) from the first.

    The first says that one animal acted on several or several on one, in the active or the passive
    voice; the second says which of both, and has the same words either way. Columns:
    ``sentence1``, ``sentence2``, ``label``.
    """
    rng = Random(seed)
    labels = _balanced(rng, count, (0, 1))
    pairs = [_entailment_pair(rng, label) for label in labels]
    return {
        "sentence1": [premise for premise, _ in pairs],
        "sentence2": [hypothesis for _, hypothesis in pairs],
        "label": labels,
    }


def quantity(count: int, seed: int) -> Columns:
    """Draw questions of how many animals acted, or were acted on.

    The numbers of the two groups sum to eleven, so their mean says nothing about the answer, which
    is within `QUANTITY_RANGE`; a third number may stand in a modifier. Columns: ``sentence``,
    ``label``.
    """
    rng = Random(seed)
    smallest, largest = QUANTITY_RANGE
    answers = _balanced(rng, count, tuple(range(smallest, largest + 1)))
    return {
        "sentence": [_quantity_question(rng, answer) for answer in answers],
        "label": [float(answer) for answer in answers],
    }


def roles(count: int, seed: int) -> Columns:
    """Draw sentences whose words are tagged with their role in the main clause, from `ROLE_TAGS`.

    The article, colour and noun of the one who acts are ``agent``, whether the clause is active or
    passive; modifiers with their own verbs and nouns are ``other``. Columns: ``tokens``, ``tags``.
    """
    rng = Random(seed)
    voices = _balanced(rng, count, (0, 1))
    rows = [_tagged_clause(rng, is_passive=voice == 1) for voice in voices]
    return {
        "tokens": [[word for word, _ in row] for row in rows],
        "tags": [[tag for _, tag in row] for row in rows],
    }


def _balanced(rng: Random, count: int, values: tuple[int, ...]) -> list[int]:
    """Return ``count`` values in random order, each as often as the others to within one."""
    drawn = [values[index % len(values)] for index in range(count)]
    rng.shuffle(drawn)
    return drawn


def _agreement_sentence(rng: Random, label: int) -> str:
    is_plural = rng.random() < 0.5
    subject, attractor = rng.sample(sorted(_NOUNS), 2)
    head = _noun_phrase(rng, _inflect(_NOUNS, subject, is_plural))
    other = _noun_phrase(rng, _inflect(_NOUNS, attractor, not is_plural))
    verb = rng.choice(sorted(_INTRANSITIVE_VERBS))
    predicate = _inflect(_INTRANSITIVE_VERBS, verb, is_plural == (label == 1))
    if rng.random() < 0.25:
        return f"{rng.choice(_PREPOSITIONS)} {other} {head} {predicate}"
    return f"{head} {_modifier(rng, other)} {predicate}"


def _entailment_pair(rng: Random, label: int) -> tuple[str, str]:
    is_plural = rng.random() < 0.5
    numbers = (is_plural, not is_plural, rng.random() < 0.5)
    nouns = rng.sample(sorted(_NOUNS), 3)
    agent, patient, third = (
        _noun_phrase(rng, _inflect(_NOUNS, noun, number))
        for noun, number in zip(nouns, numbers, strict=True)
    )
    agent, patient = _modify_either(rng, agent, patient, third)
    verb = rng.choice(_TRANSITIVE_VERBS)
    premise = _clause(rng, agent, verb, patient, was="was" if is_plural else "were")
    if is_plural == (label == 1):
        return premise, f"many animals {verb} one animal"
    return premise, f"one animal {verb} many animals"


def _quantity_question(rng: Random, answer: int) -> str:
    numbers = (answer, sum(QUANTITY_RANGE) - answer, rng.randint(*QUANTITY_RANGE))
    nouns = rng.sample(sorted(_NOUNS.values()), 3)
    asked, rest, third = (_counted(rng, *group) for group in zip(numbers, nouns, strict=True))
    asked, rest = _modify_either(rng, asked, rest, third)
    verb = rng.choice(_TRANSITIVE_VERBS)
    if rng.random() < 0.5:
        return f"how many {verb} when {_clause(rng, asked, verb, rest, was='were')}"
    return f"how many were {verb} when {_clause(rng, rest, verb, asked, was='were')}"


def _tagged_clause(rng: Random, *, is_passive: bool) -> list[tuple[str, str]]:
    agent, patient, third, fourth = rng.sample(sorted(_NOUNS), 4)
    first, action, last = (
        (_noun_phrase(rng, agent), "agent"),
        (rng.choice(_TRANSITIVE_VERBS), "action"),
        (_noun_phrase(rng, patient), "patient"),
    )
    verb_phrase = [action]
    if is_passive:
        first, last = last, first
        verb_phrase = [("was", "other"), action, ("by", "other")]
    inner = (_optional_modifier(rng, _noun_phrase(rng, third)), "other")
    outer = (_optional_modifier(rng, _noun_phrase(rng, fourth)), "other")
    chunks = [first, inner, *verb_phrase, last, outer]
    return [(word, tag) for words, tag in chunks for word in words.split()]


def _clause(rng: Random, agent: str, verb: str, patient: str, *, was: str) -> str:
    """Say that the agent acted on the patient, in the active or the passive voice."""
    if rng.random() < 0.5:
        return f"{agent} {verb} {patient}"
    return f"{patient} {was} {verb} by {agent}"


def _noun_phrase(rng: Random, noun: str) -> str:
    return f"the {rng.choice(_COLOURS)} {noun}" if rng.random() < 0.5 else f"the {noun}"


def _counted(rng: Random, number: int, noun: str) -> str:
    word = _NUMBERS[number - QUANTITY_RANGE[0]]
    return f"{word} {rng.choice(_COLOURS)} {noun}" if rng.random() < 0.5 else f"{word} {noun}"


def _modifier(rng: Random, noun_phrase: str) -> str:
    """Attach a noun phrase to the noun before it, by a preposition or a relative clause."""
    verb = rng.choice(_TRANSITIVE_VERBS)
    return rng.choice(
        (
            f"{rng.choice(_PREPOSITIONS)} {noun_phrase}",
            f"that {verb} {noun_phrase}",
            f"that {noun_phrase} {verb}",
        )
    )


def _optional_modifier(rng: Random, noun_phrase: str) -> str:
    """Return a modifier with a space before it, or in half of the cases nothing."""
    return f" {_modifier(rng, noun_phrase)}" if rng.random() < 0.5 else ""


def _modify_either(rng: Random, first: str, second: str, third: str) -> tuple[str, str]:
    """Attach a modifier made of the third noun phrase to one of the others, or to none."""
    if rng.random() < 0.5:
        return first + _optional_modifier(rng, third), second
    return first, second + _optional_modifier(rng, third)


def _inflect(forms: dict[str, str], singular: str, is_plural: bool) -> str:
    return forms[singular] if is_plural else singular
