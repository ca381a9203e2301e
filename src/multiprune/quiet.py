"""Silence the output of libraries."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Keep the screen for what a run or a command has to say."""
    # Imported late: commands that need neither answer at once.
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
