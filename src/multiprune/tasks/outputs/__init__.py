"""Kinds of answers, one file each: its head, what that means, and how it is described."""
