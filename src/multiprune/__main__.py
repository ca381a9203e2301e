"""``python -m multiprune``: the same as the command ``multiprune``."""

from multiprune.cli import main

main()
