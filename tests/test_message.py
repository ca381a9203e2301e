import pytest

from multiprune.message import how_it_ended


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "was killed by SIGKILL (out of memory?)"),
        (-15, "was killed by SIGTERM"),
        (-40, "was killed by signal 40"),
        (3, "ended with exit status 3, and what it said stands above"),
    ],
)
def test_end_of_a_process_in_words(code: int, words: str) -> None:
    assert how_it_ended(code) == words
