"""Build a W&B workspace for finished runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.tracking.sync import check_key

try:
    from wandb_workspaces.reports.v2 import interface as panels
    from wandb_workspaces.workspaces import interface as workspaces
except ModuleNotFoundError as error:
    raise RuntimeError(
        "`--wandb` needs the package wandb-workspaces, which is not installed: "
        "pip install 'multiprune[wandb-reports]'."
    ) from error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from multiprune.runs.frame import FinishedRun

NAME = "multiprune"

# The names under which runs are logged, see `multiprune.report.outcome`.
_STEP = "trainer/global_step"
_KEPT = panels.SummaryMetric("kept")
_SCORE = panels.SummaryMetric("score")


def dashboard(runs: Sequence[FinishedRun], place: str) -> workspaces.Workspace:
    """Return a workspace in ``place``, ``entity/project``, with a panel for each task of ``runs``.

    It shows all runs of the project: ``runs`` say which tasks and budgets there are.

    Raises:
        ValueError: if there is no run, or ``place`` has other than two parts.
    """
    entity, _, project = place.partition("/")
    if not entity or not project or "/" in project:
        raise ValueError(f"`--wandb` must be ENTITY/PROJECT, but is {place!r}.")
    if not runs:
        raise ValueError("No finished runs to show in a dashboard.")
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            workspaces.Section(name="Frontier", panels=_frontier(), is_open=True),
            workspaces.Section(name="What was varied", panels=[_varied(runs)], is_open=True),
            workspaces.Section(name="Tasks", panels=_tasks(runs), is_open=True),
            workspaces.Section(name="Where parameters are kept", panels=_densities()),
        ],
        runset_settings=workspaces.RunsetSettings(
            pinned_columns=["summary:score", "summary:kept", "summary:density"]
        ),
    )


def as_json(workspace: workspaces.Workspace) -> str:
    """Return what W&B would be sent."""
    return str(workspace._to_model().model_dump_json(by_alias=True, indent=2))


def save(workspace: workspaces.Workspace) -> str:
    """Save a workspace to W&B; return its address.

    Raises:
        RuntimeError: if there is no key.
    """
    check_key()
    return str(workspace.save().url)  # type: ignore[no-untyped-call]


def publish(runs: Sequence[FinishedRun], place: str, file: Path | None) -> str:
    """Save the dashboard of ``runs`` to W&B, or write it to ``file``; return where it is."""
    workspace = dashboard(runs, place)
    if file is None:
        return save(workspace)
    file.write_text(as_json(workspace))
    return str(file)


def _frontier() -> list[panels.PanelTypes]:
    return [
        panels.ScatterPlot(title="Score against kept parameters", x=_KEPT, y=_SCORE, log_x=True),
        panels.LinePlot(title="Score while pruning", x=_STEP, y=["val/score"]),
        panels.LinePlot(title="Density", x=_STEP, y=["density"]),
    ]


def _varied(runs: Sequence[FinishedRun]) -> panels.ParallelCoordinatesPlot:
    budgets = {
        key
        for run in runs
        for key in ("fraction", "count")
        if f"budget.{key}" in run.record.settings
    }
    column = panels.ParallelCoordinatesPlotColumn
    return panels.ParallelCoordinatesPlot(
        title="Pruner, budget, learning rate and score",
        columns=[
            column(panels.Config("choices.pruner"), display_name="pruner"),
            *(column(panels.Config(f"budget.{key}"), display_name=key) for key in sorted(budgets)),
            column(
                panels.Config("optimizer.learning_rate"), display_name="learning rate", log=True
            ),
            column(_KEPT, display_name="kept"),
            column(_SCORE, display_name="score"),
        ],
    )


def _tasks(runs: Sequence[FinishedRun]) -> list[panels.PanelTypes]:
    metrics = {task: metric for run in runs for task, metric in run.metrics.items()}
    names = {task: f"val/{task}/{metric}" for task, metric in metrics.items()}
    return [
        panel
        for task, name in names.items()
        for panel in (
            panels.ScatterPlot(
                title=f"{task}: {metrics[task]} against kept parameters",
                x=_KEPT,
                y=panels.SummaryMetric(name),
                log_x=True,
            ),
            panels.LinePlot(title=f"{task}: {metrics[task]}", x=_STEP, y=[name]),
        )
    ]


def _densities() -> list[panels.PanelTypes]:
    return [panels.MediaBrowser(title="Density by layer", media_keys=["density_by_layer"])]
