from __future__ import annotations

import pytest

from multiprune.launching import devices
from multiprune.launching.devices import workers

VISIBLE = "CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("0", ["0"]),
        ("2, 0", ["2", "0"]),
        ("GPU-8932f937-d72c", ["GPU-8932f937-d72c"]),
        ("MIG-GPU-1/0/0,MIG-GPU-1/1/0", ["MIG-GPU-1/0/0", "MIG-GPU-1/1/0"]),
        ("1,-1,0", ["1"]),
    ],
)
def test_listed_devices_are_handed_out_by_their_names(listed: str, expected: list[str]) -> None:
    assert workers(None, {VISIBLE: listed}) == [{VISIBLE: device} for device in expected]


def test_jobs_without_a_gpu_see_none() -> None:
    assert workers(3, {VISIBLE: "0,1"}) == [{VISIBLE: ""}] * 3


@pytest.mark.parametrize("listed", ["", "-1"])
def test_there_must_be_a_gpu_unless_workers_are_asked_for(listed: str) -> None:
    with pytest.raises(ValueError, match=r"found no GPU: set hydra\.launcher\.workers=N"):
        workers(None, {VISIBLE: listed})
    with pytest.raises(ValueError, match="at least 1, but is 0"):
        workers(0, {VISIBLE: "0"})


def test_all_devices_are_handed_out_where_none_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_count", lambda: 2)
    assert workers(None, {}) == [{VISIBLE: "0"}, {VISIBLE: "1"}]


@pytest.mark.slow
def test_devices_are_those_of_torch() -> None:
    import torch

    assert devices._count() == torch.cuda.device_count()
