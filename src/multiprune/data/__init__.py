"""Sources of rows, tokenization, mixing of tasks, and batches."""
