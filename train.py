"""Finetune one encoder on many tasks while it is pruned: ``python train.py --help``."""

import hydra
from omegaconf import DictConfig

from multiprune.config import register
from multiprune.cores import share_cores
from multiprune.outcome import ended_plainly

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float:
    """Run one composed configuration; return its score."""
    share_cores()
    # Imported late, so that --help and --cfg answer at once.
    application = hydra.utils.get_method(config.get("application", "multiprune.start.run"))
    score: float = application(config)
    return score


if __name__ == "__main__":
    ended_plainly(main)
