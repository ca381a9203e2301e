from __future__ import annotations

import os

import pytest

from multiprune.launching.devices import threads, workers

VISIBLE = "CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("listed", "devices"),
    [
        ("0", ["0"]),
        ("2, 0", ["2", "0"]),
        ("GPU-8932f937-d72c", ["GPU-8932f937-d72c"]),
        ("MIG-GPU-1/0/0,MIG-GPU-1/1/0", ["MIG-GPU-1/0/0", "MIG-GPU-1/1/0"]),
        ("1,-1,0", ["1"]),
    ],
)
def test_listed_devices_are_handed_out_by_their_names(listed: str, devices: list[str]) -> None:
    assert workers(None, {VISIBLE: listed}) == [{VISIBLE: device} for device in devices]


def test_jobs_without_a_gpu_see_none() -> None:
    assert workers(3, {VISIBLE: "0,1"}) == [{VISIBLE: ""}] * 3


@pytest.mark.parametrize("listed", ["", "-1"])
def test_there_must_be_a_gpu_unless_workers_are_asked_for(listed: str) -> None:
    with pytest.raises(ValueError, match=r"needs a GPU, or hydra\.launcher\.workers=N"):
        workers(None, {VISIBLE: listed})
    with pytest.raises(ValueError, match="at least 1, but is 0"):
        workers(0, {VISIBLE: "0"})


def test_devices_are_counted_where_none_are_listed() -> None:
    import torch

    count = torch.cuda.device_count()
    if count:
        assert workers(None, {}) == [{VISIBLE: str(number)} for number in range(count)]
    else:
        with pytest.raises(ValueError, match="there is none"):
            workers(None, {})


def test_threads_share_the_cores_unless_the_user_says_otherwise() -> None:
    cores = len(os.sched_getaffinity(0))
    assert threads(1, {}) == str(cores)
    assert threads(10 * cores, {}) == "1"
    assert threads(2, {"OMP_NUM_THREADS": "5"}) == "5"
