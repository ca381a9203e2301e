"""Whether a run that ``kill -9`` ended, and that the same command continued, ends as if it had not.

    python benchmarks/kill_and_resume.py --kills 40 --seed 0
    python benchmarks/kill_and_resume.py --kills 10 --pruners movement structured

Runs of the embedded encoder, of all pruners in turn, are killed in the midst of the start, of
training, of a checkpoint or of the end, where the model and the results are written; every fifth is
killed twice. All that they leave is compared with a run of the same command that was not killed:
every file but the log, and in ``results.json`` and checkpoints every value but times.

The seed decides which pruner is killed in which part, in the writing of which checkpoint, and after
what share of that part: of the seconds that the run that was not killed has computed in it, so that
it matters little what else the machine does. Not reproducible is the instruction that this hits:
the part is seen to begin by looking into the run's folder every few milliseconds, and no two runs
compute for equally long. A run that ends before its moment comes is compared as well, but does not
count as a kill. What was interrupted goes on with the next run. Every eleventh run is
``python train.py``; the others execute the same file in a process that has been forked from one in
which its imports are done.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from killed_run import Killed, Moment, Runner, killed_at
from rich.console import Console
from rich.table import Table
from same_run import differences
from small_runs import MASKS_FROM, RESULTS, pruners, write_results
from watched_run import PARTS

from multiprune.runs.status import is_concluded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from watched_run import Timeline

_RUNS_BY_COMMAND, _RUNS_KILLED_TWICE = 11, 5


@dataclass(frozen=True)
class Plan:
    """A run, and when it is killed."""

    pruner: str
    by_command: bool
    moments: tuple[Moment, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a run that was to be killed."""

    plan: Plan
    kills: list[Killed]
    missed: int
    different: list[str]


def main() -> None:
    """Kill, print the table, and end with 1 if a run ends in another way than one not killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pruners", nargs="+", choices=pruners(), default=pruners())
    parser.add_argument("--json", type=Path, default=RESULTS / "kill_and_resume.json")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    stated = {"seed": options.seed, "pruners": options.pruners}
    outcomes = earlier(options.json, stated)
    with tempfile.TemporaryDirectory() as folder:
        upcoming = plans(options.pruners, options.seed, commands=True)
        upcoming = itertools.islice(upcoming, len(outcomes), None)
        done = sum(len(outcome.kills) for outcome in outcomes)
        for outcome in outcomes_of(Path(folder), upcoming, options.kills - done):
            outcomes.append(outcome)
            report(outcome)
            runs = [asdict(one) for one in outcomes]
            kills = sum(len(one.kills) for one in outcomes)
            write_results(options.json, {**stated, "kills": kills, "runs": runs})
    Console(width=100).print(table(outcomes))
    raise SystemExit(any(one.different for one in outcomes))


def earlier(file: Path, stated: Mapping[str, Any]) -> list[Outcome]:
    """Return what an earlier call with the same seed and pruners has left, which goes on here."""
    content = json.loads(file.read_text()) if file.exists() else {}
    if any(content.get(key) != value for key, value in stated.items()):
        return []
    return [outcome_from(run) for run in content["runs"]]


def outcome_from(content: Mapping[str, Any]) -> Outcome:
    """Return an outcome as it was written."""
    plan, kills = content["plan"], content["kills"]
    return Outcome(
        Plan(**plan | {"moments": tuple(Moment(**one) for one in plan["moments"])}),
        [Killed(**killed | {"aimed_at": Moment(**killed["aimed_at"])}) for killed in kills],
        content["missed"],
        content["different"],
    )


def plans(names: Sequence[str], seed: int, *, commands: bool) -> Iterator[Plan]:
    """Yield what to kill, without end."""
    draw = random.Random(seed)
    for number in itertools.count():
        # In each round of all pruners, each is killed in the next part.
        part = PARTS[(number % len(names) + number // len(names)) % len(PARTS)]
        moments = [Moment(part, draw.random(), draw.random())]
        if number % _RUNS_KILLED_TWICE == _RUNS_KILLED_TWICE - 1:
            # Of what is left after the first, any part.
            moments.append(Moment(draw.choice(PARTS), draw.random(), draw.random() / 3))
        by_command = commands and number % _RUNS_BY_COMMAND == 0
        yield Plan(names[number % len(names)], by_command, tuple(moments))


def outcomes_of(folder: Path, upcoming: Iterable[Plan], kills: int) -> Iterator[Outcome]:
    """Kill runs in ``folder`` until there were so many kills; yield what became of each."""
    runner = Runner(folder / "straight" / MASKS_FROM)
    straight: dict[str, Timeline] = {}
    done = 0
    for number, plan in enumerate(upcoming):
        if done >= kills:
            return
        for name in (MASKS_FROM, plan.pruner):
            if name not in straight:
                straight[name] = runner.straight(folder / "straight" / name, name)
        timeline = straight[plan.pruner]
        if plan.by_command:
            timeline = runner.with_imports(folder / "imports", plan.pruner, timeline)
        run = folder / f"{number}"
        outcome = outcome_of(plan, runner, run, timeline, folder / "straight" / plan.pruner)
        done += len(outcome.kills)
        yield outcome


def outcome_of(
    plan: Plan, runner: Runner, run: Path, timeline: Timeline, straight: Path
) -> Outcome:
    """Kill a run as planned, continue it until it has finished, and compare."""
    kills = []
    for moment in plan.moments:
        if not is_finished(run):
            process = runner.start(run, plan.pruner, by_command=plan.by_command)
            if killed := killed_at(moment, process, run, timeline):
                kills.append(killed)
    different = []
    if not is_finished(run):
        process = runner.start(run, plan.pruner, by_command=plan.by_command)
        if status := process.wait():
            different.append(f"the same command again: exit status {status}")
    different += differences(run, straight)
    different += [f"{name} is left over" for name in runner.left_in_cache(run)]
    return Outcome(plan, kills, len(plan.moments) - len(kills), different)


def is_finished(run: Path) -> bool:
    """Whether the same command would be refused, as there is nothing left to do."""
    return (run / "results.json").exists() and is_concluded(run)


def report(outcome: Outcome) -> None:
    """Print what became of one run."""
    plan = outcome.plan
    how = " by command" if plan.by_command else ""
    at = "; ".join(str(killed) for killed in outcome.kills) or "nothing"
    print(f"{plan.pruner}{how}, killed at {at}: {outcome.different or 'the same'}", flush=True)


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return how often each pruner was killed where, and how many runs ended in another way."""
    shown = Table()
    shown.add_column("pruner", no_wrap=True)
    for column in ("runs", *PARTS, "killed twice", "ended before", "different"):
        shown.add_column(column, justify="right")
    by_pruner: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_pruner.setdefault(outcome.plan.pruner, []).append(outcome)
    for name, those in [*sorted(by_pruner.items()), ("all", list(outcomes))]:
        shown.add_row(name, *(str(count) for count in counts(those)), end_section=name != "all")
    return shown


def counts(outcomes: Sequence[Outcome]) -> list[Any]:
    """Return the numbers of a row of the table."""
    parts = Counter(killed.part for outcome in outcomes for killed in outcome.kills)
    twice = sum(len(outcome.kills) == 2 for outcome in outcomes)
    missed = sum(outcome.missed for outcome in outcomes)
    different = sum(bool(outcome.different) for outcome in outcomes)
    return [len(outcomes), *(parts[part] for part in PARTS), twice, missed, different]


if __name__ == "__main__":
    main()
