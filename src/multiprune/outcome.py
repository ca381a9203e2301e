"""Handle the failure of a run: refused, failed, interrupted or stopped early."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import traceback
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from multiprune.closed_pipe import ends_with_its_reader
from multiprune.config_errors import call_sentence, composition_sentence, construction_sentence
from multiprune.redact import redact_text
from multiprune.refusal import DEFECT, FailedSweep, Refusal
from multiprune.runs.folder import RUN_LOCK, WRITTEN
from multiprune.runs.status import STATUS, GaveUpError
from multiprune.user_code import UserCodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from multiprune.runs.status import StatusFile

# Set by what starts several processes of one job.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


ResultT = TypeVar("ResultT")


class JobRefusedError(ValueError):
    """Wrong input of a job; a sweep goes on after it."""


def ended_plainly(main: Callable[[], ResultT]) -> ResultT:
    """Run Hydra's ``main``; wrong input is one sentence and exit status 2.

    A defect of ours keeps its traceback and exit status 1, and says where to report it.
    """
    import hydra._internal.utils as internal

    # Hydra would print a traceback of what composition or its own folders refuse, and exit with 1.
    internal.run_and_report = _unreported
    try:
        with ends_with_its_reader():
            return main()
    except (Refusal, FailedSweep) as ended:
        if isinstance(ended, Refusal):
            ended.say()
        raise
    except JobRefusedError as error:
        raise FailedSweep(f"error: {error}") from error
    except (SystemExit, Exception) as error:
        if (said := _refused_elsewhere(error)) is not None:
            end = Refusal(said)
            end.say()
            raise end from error
        if isinstance(error, Exception) and os.environ.get("HYDRA_FULL_ERROR") != "1":
            error.add_note(DEFECT)
        raise


def _refused_elsewhere(error: BaseException) -> str | None:
    """Return what launchers, sweepers or Hydra say to wrong input; None if it is none of that."""
    if isinstance(error, SystemExit):
        said = error.code if isinstance(error.code, str) else ""
        return said.removeprefix("error: ") if said.startswith("error: ") else None
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        return None
    if isinstance(error, HydraException | OmegaConfBaseException) or not _has_begun(error):
        return composition_sentence(error, sys.argv[1:])
    if isinstance(error, OSError) and error.filename:
        # What a run itself does is refused by the run.
        return (
            "`hydra.run.dir` must be a folder that can be written, but "
            f"{error.filename} cannot: {error.strerror}."
        )
    return None


def _unreported(func: Any) -> Any:
    return func()


def _has_begun(error: BaseException) -> bool:
    """Whether the configuration was composed."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name == "run_job" for frame, _ in frames)


def is_job() -> bool:
    """Whether this run is one of a sweep."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


@contextmanager
def reported(status: StatusFile) -> Iterator[None]:
    """Write into ``status`` how it ended, if it does not end well."""
    try:
        yield
    except GaveUpError as error:
        status.end("given up", reason=str(error))
        raise
    except (OSError, UserCodeError) as error:
        # A full disk, data that have vanished, or code of the user: where in this program they were
        # met says nothing about that.
        status.end("failed", reason=sentence(error))
        raise refusal(error) from error
    except Exception as error:
        status.end("failed", reason=sentence(error))
        raise
    except BaseException as error:
        # A refusal, or else Ctrl-C or SIGTERM, which Lightning turns into ways to exit.
        refused = error.__cause__ if isinstance(error, SystemExit) else None
        if isinstance(refused, Exception):
            status.end("failed", reason=sentence(refused))
        status.end("interrupted")
        raise


@contextmanager
def refused(status: StatusFile) -> Iterator[None]:
    """Turn wrong input into a refusal, which leaves no folder of a single run."""
    try:
        yield
    except (ValueError, TypeError, OSError, HydraException) as error:
        status.end("failed", reason=sentence(error))
        if not is_job() and is_first_process():
            discard_empty_run(status.folder)
        raise refusal(error) from error


def is_first_process() -> bool:
    """Whether this process is the first of those that share a run, by what their launcher says."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM raise, as Ctrl-C does; training ends itself after a whole step."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def sentence(error: Exception) -> str:
    """Return what is wrong, in one line, and where Hydra met it."""
    if isinstance(error, OmegaConfBaseException):
        return redact_text(composition_sentence(error, ()))
    if isinstance(error, HydraException):
        return redact_text(construction_sentence(error))
    return redact_text(call_sentence(error, ""))


def refusal(error: Exception) -> BaseException:
    """Return what to raise for wrong input: a sentence."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        return error
    # A sweep goes on after an exception.
    return JobRefusedError(sentence(error)) if is_job() else Refusal(sentence(error))


def discard_empty_run(folder: Path) -> None:
    """Remove the folder of a run, if it holds nothing but what Hydra and this run have written."""
    job = HydraConfig.get().job.name
    ours = (".hydra", STATUS, RUN_LOCK, WRITTEN, f"{job}.log", f"{job}_ddp_process_*.log")
    if folder.is_dir() and all(
        any(fnmatch(one.name, name) for name in ours) for one in folder.iterdir()
    ):
        shutil.rmtree(folder, ignore_errors=True)
