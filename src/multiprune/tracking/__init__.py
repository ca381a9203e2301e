"""Experiment trackers: W&B, MLflow, TensorBoard and CSV, behind one interface."""
