"""Extraction of small single-task models from a multitask model, without training."""

from pathlib import Path

#: What each setting means, and what it is if nothing is said.
CONF = Path(__file__).parent / "conf"
