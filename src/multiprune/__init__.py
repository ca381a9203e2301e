"""Finetune one text encoder on many tasks while it is pruned to a parameter budget."""
