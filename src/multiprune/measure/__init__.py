"""What a pruned model is worth: its size, its cost and its speed beside the dense model's."""

from multiprune.measure.backends import Backend, backends
from multiprune.measure.benchmark import report

__all__ = ["Backend", "backends", "report"]
