"""Running the jobs of a sweep in parallel: what Hydra's launchers are made of."""
