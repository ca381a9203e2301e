"""Pruning methods, one per file, and schedules."""
