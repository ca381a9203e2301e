"""The science: one file per pruning method, and what decides when and how much."""
