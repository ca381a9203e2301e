"""Encoders, task heads, and the multitask model of both."""
