"""How the jobs of a sweep are run beside each other; what Hydra's launchers are made of."""
