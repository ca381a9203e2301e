"""CPU quotas as Linux shows them, in files of a pretended root."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from multiprune import cores
from multiprune.cores import cpu_quota, is_busy, openmp, share_cores, usable_cores

if TYPE_CHECKING:
    from pathlib import Path

V2 = "41 31 0:38 {inner} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "32 31 0:29 {inner} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
OTHERS = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)


def machine(root: Path, *, own: str, mounts: str, **files: str) -> Path:
    """Write what Linux shows of a process; folders of ``files`` are below ``/sys/fs/cgroup``."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    (root / "proc/self/mountinfo").write_text(OTHERS + mounts)
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("0::/\n", None),
        ("0::/user/job\n", 1.5),
        # The outer one is smaller.
        ("0::/user/job/step\n", 1.5),
        ("0::/user\n", 3.0),
        ("0::/elsewhere\n", None),
    ],
)
def test_smallest_quota_of_nested_cgroups_counts(
    tmp_path: Path, own: str, expected: float | None
) -> None:
    files = {
        "user/cpu.max": "300000 100000\n",
        "user/job/cpu.max": "75000 50000\n",
        "user/job/step/cpu.max": "max 100000\n",
    }
    root = machine(tmp_path, own=own, mounts=V2.format(inner="/"), **files)
    assert cpu_quota(root) == expected


@pytest.mark.parametrize(
    ("own", "inner"),
    [
        # With a namespace of cgroups, and without: the mount shows the container's own one.
        ("4:memory:/\n3:cpu,cpuacct:/\n2:cpuset:/\n0::/\n", "/"),
        ("4:memory:/docker/7f\n3:cpu,cpuacct:/docker/7f\n2:cpuset:/\n", "/docker/7f"),
        # A path that this container does not see.
        ("3:cpu,cpuacct:/kubepods/pod1/7f\n", "/other"),
    ],
)
def test_quota_of_a_container_on_an_older_kernel_counts(
    tmp_path: Path, own: str, inner: str
) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "cpuset/cpu.max": "1 1\n",
    }
    assert cpu_quota(machine(tmp_path, own=own, mounts=V1.format(inner=inner), **files)) == 2.5
    (tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_quota(tmp_path) is None


def test_no_quota_is_known_where_there_is_no_linux(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 3), (8.0, 3), (2.9, 2), (0.4, 1)])
def test_whole_cores_of_the_quota_are_usable_and_one_at_least(
    quota: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 4, 5})
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert usable_cores() == expected


@pytest.mark.parametrize("busy", [False, True])
def test_threads_have_a_core_each_and_spin_longer_where_nothing_else_runs(
    busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "is_busy", lambda _: busy)
    waiting = {"GOMP_SPINCOUNT": "1000" if busy else "30000"}
    if busy:
        waiting["OMP_WAIT_POLICY"] = "PASSIVE"  # for others than libgomp
    assert openmp(6, {}) == {"OMP_NUM_THREADS": "6"} | waiting
    assert openmp(0, {}) == {"OMP_NUM_THREADS": "1"} | waiting
    assert openmp(2, {"GOMP_SPINCOUNT": "7"}) == {"OMP_NUM_THREADS": "2"}


@pytest.mark.parametrize(
    ("usable", "running", "expected"),
    [(2, 1, False), (2, 2, True), (4, 2, False), (4, 3, True), (1, 4, False), (1, 5, True)],
)
def test_a_machine_is_busy_if_others_compute_on_half_of_the_cores(
    usable: int, running: int, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``running`` counts this process; of four cores, those that are not usable may be taken."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4 if usable == 1 else usable)
    file = tmp_path / "loadavg"
    file.write_text(f"0.20 0.18 0.12 {running}/80 11206\n")
    assert is_busy(usable, file=file) == expected
    assert not is_busy(usable, file=tmp_path / "none")


def test_what_the_user_says_of_threads_counts() -> None:
    own = {"OMP_NUM_THREADS": "5", "OMP_WAIT_POLICY": "active"}
    assert own | openmp(2, own) == own


@pytest.mark.parametrize(("affinity", "expected"), [(2, None), (4, "2")])
def test_torch_is_told_of_a_quota_and_not_of_cores_that_it_sees_itself(
    affinity: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "_affinity", lambda: affinity)
    monkeypatch.setattr(cores, "cpu_quota", lambda: 2.5)
    monkeypatch.setattr(cores, "is_busy", lambda _: True)
    monkeypatch.setattr(os, "environ", {})
    share_cores()
    assert os.environ.get("OMP_NUM_THREADS") == expected
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_what_the_user_says_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "active"}
    monkeypatch.setattr(cores, "cpu_quota", lambda: 1.0)
    monkeypatch.setattr(os, "environ", dict(own))
    share_cores()
    assert os.environ == own
