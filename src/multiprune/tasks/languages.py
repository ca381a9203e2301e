"""Languages of a task's rows, and scores by language."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.tasks.rows import Rows

#: The column that says which language a row is in.
LANGUAGE = "lang"


def check_declaration(
    languages: Sequence[str],
    train_languages: Sequence[str] | None,
    groups: Mapping[str, Sequence[str]],
) -> None:
    """Raise a ValueError unless a task's languages are different, and all others are of them."""
    if len(set(languages)) < len(languages):
        raise ValueError(f"`languages` must be different, but are {list(languages)}.")
    named: dict[str, list[str]] = {"train_languages": [*(train_languages or ())]}
    for group, members in groups.items():
        named[f"language_groups.{group}"] = [*members]
    for where, chosen in named.items():
        if unknown := [one for one in chosen if one not in languages]:
            raise ValueError(
                f"`{where}` must be of the task's `languages` ({', '.join(languages)}), but has "
                f"{', '.join(map(str, unknown))}."
            )
    if train_languages is not None and not train_languages:
        raise ValueError("`train_languages` must name a language or be null, but is empty.")
    for group, members in groups.items():
        if group in languages or not members:
            raise ValueError(
                "A language group must be non-empty and must not share a language's name, "
                f"but {group!r} is {list(members)}."
            )


def languages_of(rows: Rows, declared: Sequence[str]) -> list[str]:
    """Return the language of each row.

    Raises:
        ValueError: if there is no such column, or a language in it that is not declared.
    """
    if LANGUAGE not in rows.table.column_names:
        raise ValueError(
            f"{rows.origin} must have a column {LANGUAGE!r}, as its task has `languages`, but has "
            f"{', '.join(rows.table.column_names)}."
        )
    found: list[str] = rows.table[LANGUAGE][:]
    if unknown := sorted(set(map(str, found)) - set(declared)):
        raise ValueError(
            f"Column {LANGUAGE!r} of {rows.origin} must hold languages that the task declares "
            f"({', '.join(declared)}), but holds {', '.join(unknown)}."
        )
    return found


def with_averages(
    by_language: Mapping[str, Mapping[str, float]], groups: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Return metrics as means over languages, then of each language and each group.

    They are named ``f1``, ``f1.en`` and ``f1.<group>``. Languages that a split does not have do not
    count, nor do groups of none but such.
    """
    known = {
        group: [one for one in members if one in by_language] for group, members in groups.items()
    }
    averages: dict[str, float] = {}
    for metric in next(iter(by_language.values())):
        values = {language: scores[metric] for language, scores in by_language.items()}
        averages[metric] = _mean([*values.values()])
        averages |= {f"{metric}.{language}": value for language, value in values.items()}
        averages |= {
            f"{metric}.{group}": _mean([values[one] for one in members])
            for group, members in known.items()
            if members
        }
    return averages


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
