"""A sweeper for Hydra; `hydra_plugins` is where Hydra looks for it."""
