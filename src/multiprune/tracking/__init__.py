"""Experiment trackers: W&B, MLflow, TensorBoard and a CSV file, all told of a run in one way."""
