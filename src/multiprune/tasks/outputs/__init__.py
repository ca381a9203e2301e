"""Kinds of outputs, one per file: head, predictions and description."""
