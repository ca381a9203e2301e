"""An application whose jobs do as they are told, quickly: ``python toy_app.py -m act=...``."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig

if TYPE_CHECKING:
    from omegaconf import DictConfig


class UnpicklableError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


@dataclass
class Toy:
    act: str = "return"
    value: int = 0


ConfigStore.instance().store(name="toy", node=Toy)


@hydra.main(version_base="1.3", config_path=None, config_name="toy")
def main(config: DictConfig) -> float:
    output = Path(HydraConfig.get().runtime.output_dir)
    number, folder = HydraConfig.get().job.num, output.parent
    if config.act == "ignore_notice":
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    record = {
        "pid": os.getpid(),
        "devices": os.environ["CUDA_VISIBLE_DEVICES"],
        "threads": os.environ["OMP_NUM_THREADS"],
        "waits": os.environ.get("OMP_WAIT_POLICY") or os.environ.get("GOMP_SPINCOUNT"),
        "begun": time.monotonic(),
    }
    (folder / f"{number}.begun").write_text(json.dumps(record))
    print(f"job {number} prints")
    if config.act == "meet":
        # Two jobs that wait for each other end only if they run at the same time.
        while len(list(folder.glob("*.begun"))) < 2:
            time.sleep(0.01)
        time.sleep(0.05)
    elif config.act in ("wait_for_go", "ignore_notice"):
        while not (folder / "go").exists():
            time.sleep(0.05)
    elif config.act == "wait":
        time.sleep(600)
    elif config.act == "raise":
        raise ValueError(f"{config.value} is refused.\nThere is more to say.")
    elif config.act == "unpicklable":
        raise UnpicklableError("two", "words")
    elif config.act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif config.act == "exit":
        sys.exit(3)
    (folder / f"{number}.json").write_text(json.dumps(record | {"ended": time.monotonic()}))
    return float(config.value)


if __name__ == "__main__":
    main()
