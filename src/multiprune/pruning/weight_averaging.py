"""Refuse averages of a model's weights, as of AveragedModel, while they would be wrong.

Until the schedule ends masks change, and at its end layers are cut. An average that begins earlier
holds weights that are pruned since, and other shapes than the model; one that begins then is as
sparse as the model. Torch pairs parameters by their order alone, so that it may average wrong ones
without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.modules.module import register_module_module_registration_hook
from torch.optim.swa_utils import AveragedModel

from multiprune.pruning.progress import progress_of

if TYPE_CHECKING:
    from torch import Size, nn


class UpdateOfSameModel:
    """Takes the place of ``update_parameters`` of an average: the model must be as it was then."""

    def __init__(self, average: AveragedModel) -> None:
        self.average = average

    def __call__(self, model: nn.Module) -> None:
        """Update the average, unless the model was prepared, cut or finalized in the meantime."""
        if _kind(self.average.module) != _kind(model):
            raise ValueError(
                "An AveragedModel that was made before pruner.prepare(model), before layers were "
                "cut, or before pruner.finalize(), cannot follow the model: make another once the "
                "schedule has ended."
            )
        type(self.average).update_parameters(self.average, model)


def _kind(model: nn.Module) -> tuple[bool, list[Size]]:
    return progress_of(model) is not None, [one.shape for one in model.parameters()]


def _look_at(module: nn.Module, _: str, part: nn.Module | None) -> None:
    """Refuse an average of a model whose masks and shapes will change."""
    if not isinstance(module, AveragedModel) or part is None:
        return
    progress = progress_of(part)
    if progress is not None and progress.goes_on:
        steps = "" if progress.stop_step is None else f" at step {progress.stop_step:,}"
        raise ValueError(
            f"An AveragedModel of a model that is being pruned, at step {progress.step:,}, would "
            f"mix masks and shapes: make it once the schedule has ended{steps}, and load its "
            "module's state into the model before pruner.finalize()."
        )
    module.update_parameters = UpdateOfSameModel(module)  # type: ignore[method-assign]


def watch_averages() -> None:
    """Look at every AveragedModel that is made from now on.

    Nothing else tells of one: it copies the model, and later reads its parameters.
    """
    register_module_module_registration_hook(_look_at)
