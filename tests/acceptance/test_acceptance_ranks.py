"""Two processes train every pruner as one does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from acceptance_rows import (
    KINDS,
    NOTHING,
    rows,
)
from acceptance_world import (
    DENSE,
    TOTAL_STEPS,
)
from trained_in_ranks import trained

Seen = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Seen]:
    """Return what two processes have noted of all pruners."""
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).parent / "trained_in_ranks.py"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc_per_node=2", str(script), str(folder)],
        cwd=folder,
        timeout=600,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
@rows(2)
def test_02_two_ranks_keep_what_one_process_keeps(name: str, ranks: list[Seen]) -> None:
    first, second = (seen[name] for seen in ranks)
    assert len(first) == TOTAL_STEPS
    assert first == second
    assert first == trained(name, 0, 1)
    changes = len({note["masks"] for note in first}) - 1
    assert changes == 0 if name in ("none", "fixed") else changes > 0
    assert first[-1]["kept"] <= (DENSE if KINDS[name] == NOTHING else DENSE // 2)
