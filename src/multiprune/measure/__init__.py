"""Size, cost and speed of pruned models, compared with dense ones."""

from multiprune.measure.backends import Backend, backends
from multiprune.measure.benchmark import report

__all__ = ["Backend", "backends", "report"]
