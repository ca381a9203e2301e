"""Detect a dead rank, and end the others with its reason."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch.distributed import DistError
from typing_extensions import override

from multiprune.message import first_line, how_it_ended
from multiprune.refusal import Refusal
from multiprune.runs.status import StatusFile, read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from subprocess import Popen

    import pytorch_lightning as pl

# The process that has started this one, in the environment of those it starts.
_STARTED_BY = "MULTIPRUNE_STARTED_BY"

# Exit status of a process that ends because another did, EX_TEMPFAIL of sysexits.h: not to blame.
BEREFT = 75

_RESUME = "start the same command again, with the same output folder, to resume the run."

_SECONDS_BETWEEN_LOOKS = 0.5
# A connection is closed before its process has ended, which may still say why.
_SECONDS_TO_LEARN = 5.0
# A process that waits for another in a library hears of nothing.
_SECONDS_TO_END = 10.0


class RankDiedError(ChildProcessError):
    """One of the processes of a run has ended before the others."""


@contextmanager
def watched(trainer: pl.Trainer, status: StatusFile) -> Iterator[None]:
    """End this process of a run, and those that it has started, when one of the others dies.

    Raises:
        Refusal: if one died that was started by this one, or has started it.
        RankDiedError: if one died that something else has started, such as Slurm.
    """
    if trainer.world_size == 1:
        yield
        return
    ranks, over = _Ranks(trainer, status.folder), threading.Event()
    threading.Thread(target=ranks.end_with_another, args=(over,), daemon=True).start()
    try:
        yield
    except BaseException as error:
        over.set()
        if (reason := ranks.reason(error)) is None:
            ranks.stop_started(patience=_SECONDS_TO_END)
            raise
        # Each waits for one that does not come.
        ranks.stop_started(patience=0)
        raise reason from RankDiedError(getattr(reason, "sentence", reason))
    finally:
        over.set()


class _Ranks:
    """The processes of a run, as one of them sees them."""

    def __init__(self, trainer: pl.Trainer, folder: Path) -> None:
        self.rank, self.world = trainer.global_rank, trainer.world_size
        self._folder = folder
        strategy: Any = trainer.strategy
        if isinstance(strategy.launcher, _SubprocessScriptLauncher):
            strategy._launcher = _UnobservedLauncher(
                strategy.cluster_environment, strategy.num_processes, strategy.num_nodes
            )
        self._started: Callable[[], list[Popen[bytes]]] = lambda: getattr(
            strategy.launcher, "procs", []
        )
        parent = int(os.environ.get(_STARTED_BY, "0"))
        self._parent = None if parent in (0, os.getpid()) else parent

    def dead(self) -> str | None:
        """Return which process has died, and how; None if all live, as far as is known here."""
        if self._parent is not None:
            gone = os.getppid() != self._parent
            return f"Rank 0 of {self.world} (process {self._parent}) has died" if gone else None
        codes = [(one, one.poll()) for one in self._started()]
        # Those that were bereft by it may have ended as well.
        ended = [
            (code == BEREFT, code > 0, self.rank + at, one.pid, code)
            for at, (one, code) in enumerate(codes, start=1)
            if code
        ]
        if not ended:
            return None
        _, _, rank, pid, code = min(ended)
        return f"Rank {rank} of {self.world} (process {pid}) {how_it_ended(code)}"

    def reason(self, error: BaseException) -> BaseException | None:
        """Return what to raise for ``error``; None if no other process is to blame for it."""
        if not _is_lost_connection(error):
            return None
        deadline = time.monotonic() + _SECONDS_TO_LEARN
        while (dead := self.dead()) is None and time.monotonic() < deadline:
            time.sleep(_SECONDS_BETWEEN_LOOKS / 10)
        if dead is not None:
            told = self._tell(dead)
            return told if told is not None else SystemExit(BEREFT)
        if self._parent is not None:
            # Which has started the others, and says what became of them.
            return SystemExit(BEREFT)
        return RankDiedError(self._without_knowing(error))

    def end_with_another(self, over: threading.Event) -> None:
        """End this process when another has died and the main thread does not hear of it."""
        while not over.wait(_SECONDS_BETWEEN_LOOKS):
            if (dead := self.dead()) is not None and not over.wait(_SECONDS_TO_END):
                if (told := self._tell(dead)) is not None:
                    if self._parent is None:
                        StatusFile(self._folder).overrule("failed", told.sentence)
                    told.say()
                self.stop_started(patience=0)
                sys.stderr.flush()
                os._exit(BEREFT if told is None else 2)

    def stop_started(self, *, patience: float) -> None:
        """See to it that no process is left that this one has started."""
        deadline = time.monotonic() + patience
        for one in self._started():
            while one.poll() is None and time.monotonic() < deadline:
                time.sleep(_SECONDS_BETWEEN_LOOKS / 10)
            if one.poll() is None:
                one.kill()
                one.wait()

    def _tell(self, dead: str) -> Refusal | None:
        """Return how to end for ``dead``; None if somebody else has said it, or will."""
        told = Refusal(f"{dead}: {_RESUME}")
        if self._parent is None:
            return told
        # The first process, which writes the status, is not there any more.
        with contextlib.suppress(ValueError):
            known = read_status(self._folder)
            if known is not None and (known.state, known.pid) == ("running", self._parent):
                StatusFile(self._folder).overrule("failed", told.sentence)
                return told
        return None

    def _without_knowing(self, error: BaseException) -> str:
        job = os.environ.get("SLURM_JOB_ID")
        asked = f"; `sacct -j {job}` says which" if job else ""
        return (
            f"Rank {self.rank} of {self.world} (process {os.getpid()} on {platform.node()}) has "
            f"lost its connection to another that has died or cannot be reached{asked} "
            f"({first_line(error)[:200]}): {_RESUME}"
        )


class _UnobservedLauncher(_SubprocessScriptLauncher):
    """Lightning's, without what kills this process when one that it has started dies."""

    @override
    def launch(
        self, function: Any, *args: Any, trainer: pl.Trainer | None = None, **kwargs: Any
    ) -> Any:
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            os.environ[_STARTED_BY] = str(os.getpid())
            self._call_children_scripts()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


def _is_lost_connection(error: BaseException) -> bool:
    """Whether a library for communication has failed, of which gloo has no errors of its own."""
    said = r"\bgloo\b|NCCL|Connection (closed|reset) by peer"
    is_of_gloo = isinstance(error, RuntimeError) and re.search(said, str(error)) is not None
    return isinstance(error, DistError) or is_of_gloo
