"""Lightning glue: ``Pruning`` is the callback for anybody's Trainer."""

from multiprune.training.pruning import Pruning

__all__ = ["Pruning"]
