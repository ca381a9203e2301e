"""Hydra finds its plug-ins in ``hydra_plugins``, and imports all of them at every start."""
