"""Export of models to folders that load without this package, and their use."""
