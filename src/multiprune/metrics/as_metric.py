"""Convert what a task is given to a metric."""

from __future__ import annotations

from multiprune.metrics.metric import Metric


def as_metric(name: str, given: object) -> Metric:
    """Return what a task is given under a name as a metric.

    Raises:
        ValueError: if it is none, or scores could not be logged under its name.
    """
    if "/" in name or "." in name:
        raise ValueError(
            f"The name of a metric must be without / and ., which part the names of scores, but is "
            f"{name!r}."
        )
    if isinstance(given, Metric):
        return given
    # Late, for it takes seconds, and whoever has such a metric has imported it.
    import torchmetrics

    from multiprune.metrics.adapter import TorchMetric

    if isinstance(given, torchmetrics.Metric):
        return TorchMetric(given)
    raise ValueError(
        f"Metric {name!r} must be an object such as {{_target_: multiprune.metrics.Accuracy}}, or "
        f"one of torchmetrics, but is {given!r}."
    )
