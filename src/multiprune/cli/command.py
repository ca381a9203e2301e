"""How a command is added: its summary, what it does, its options and an example."""

from __future__ import annotations

import argparse
import textwrap
from shutil import get_terminal_size
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(
    commands: Commands, name: str, *, summary: str, example: str, about: str = "", notes: str = ""
) -> argparse.ArgumentParser:
    """Add a command whose help begins with ``summary`` and ends with ``example``.

    Args:
        commands: the subparsers of ``multiprune``.
        name: what is typed after ``multiprune``.
        summary: one verb phrase, which the list of commands shows.
        example: one command line or several.
        about: what the command reads and writes, as one paragraph.
        notes: text between the options and the example, whose lines are kept.
    """
    texts = [notes, "example:\n" + textwrap.indent(example, "  ")]
    return commands.add_parser(
        name,
        description="\n\n".join(_wrapped(text) for text in (summary, about) if text),
        epilog="\n".join(text for text in texts if text),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def command_list(commands: Commands, groups: Mapping[str, Sequence[str]]) -> str:
    """Return the names and summaries of commands by group."""
    width = max(map(len, commands.choices))
    lines = []
    for group, names in groups.items():
        lines += ["", f"{group}:"]
        for name in names:
            summary = str(commands.choices[name].description).partition("\n\n")[0]
            lines.append(f"  {name:<{width}}  {' '.join(summary.split())}")
    return "\n".join(lines[1:])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, max(get_terminal_size().columns - 2, 40))
