"""One task's own small model out of a multitask model, without training."""
