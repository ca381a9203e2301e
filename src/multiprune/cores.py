"""Count the CPU cores of this process, and set OpenMP's thread waiting."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

THREADS = "OMP_NUM_THREADS"
WAIT_POLICY, SPINS = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"

# Of libgomp's threads, a tenth of its own choice: as fast where nothing else runs. Where something
# does, a thirtieth of that: nearly as good there as none, and not as bad when the other has ended.
# Measured by benchmarks/waiting_threads.py.
_SPINS, _FEW_SPINS = "30000", "1000"


def share_cores() -> None:
    """Have torch, which is loaded after this, use the cores that it may, and not those of others.

    How many of them is its own choice, but for a container's CPU quota, which it does not know.
    """
    cores = usable_cores()
    found = openmp(cores, os.environ)
    if cores == _affinity():
        del found[THREADS]
    os.environ.update(found)


def openmp(cores: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what OpenMP must find in the environment of a job that has so many cores to itself.

    On a machine that is busy, a thread that waits for others soon leaves its core to them: one that
    spins would take it from those it waits for. Elsewhere it spins for a while, as waking up takes
    longer than a small layer does. What ``environment`` holds already counts.
    """
    defaults = {THREADS: str(max(1, cores))}
    if not environment.get(WAIT_POLICY) and not environment.get(SPINS):
        busy = {WAIT_POLICY: "PASSIVE", SPINS: _FEW_SPINS}
        defaults |= busy if is_busy(cores) else {SPINS: _SPINS}
    return {name: environment.get(name) or value for name, value in defaults.items()}


def is_busy(cores: int, *, file: Path = Path("/proc/loadavg")) -> bool:
    """Whether other processes compute on half or more of ``cores``, as Linux counts them now."""
    running = []
    for _ in range(5):
        try:
            # Tasks that run or could, this one among them, of all that there are.
            running.append(int(file.read_text().split()[3].partition("/")[0]) - 1)
        except (OSError, ValueError, IndexError):
            return False
        time.sleep(0.01)
    free = (os.cpu_count() or 1) - cores
    return statistics.median(running) - max(0, free) >= max(1, cores // 2)


def usable_cores() -> int:
    """Return the cores in this process's affinity, or as many whole ones as its quota is worth."""
    cores, quota = _affinity(), cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the CPU time that Linux grants this process, in cores; None if that is not limited.

    The smallest quota counts among those of the process's cgroup and of all that it is nested in,
    as far as they are visible: ``cpu.max`` (v2), ``cpu.cfs_quota_us`` (v1).
    """
    quotas = [_quota(folder) for folder in _cgroups(root)]
    return min((one for one in quotas if one is not None), default=None)


def _cgroups(root: Path) -> Iterator[Path]:
    """Yield the folders of the cgroups that this process is in, from each to its outermost one."""
    try:
        own = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return
    paths = dict(line.split(":", 2)[1:] for line in own if line.count(":") >= 2)
    for line in mounts:
        fields, _, source = line.partition(" - ")
        kind, *_, options = source.split(" ")
        if kind == "cgroup2":
            path = paths.get("")
        elif kind == "cgroup" and "cpu" in options.split(","):
            path = next((one for key, one in paths.items() if "cpu" in key.split(",")), None)
        else:
            continue
        if path is not None:
            inner, mounted = fields.split(" ")[3:5]
            yield from _upwards(root / mounted.lstrip("/"), inner, path)


def _upwards(mounted: Path, inner: str, path: str) -> Iterator[Path]:
    """Yield the folders from a cgroup up to where ``inner``, one that it is in, is mounted."""
    below = Path(path)
    # In a container, a path may be one of the host, which is not to be seen.
    folder = mounted / below.relative_to(inner) if below.is_relative_to(inner) else mounted
    yield from (one for one in (folder, *folder.parents) if one.is_relative_to(mounted))


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return None if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
