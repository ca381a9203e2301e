"""From what: sources of rows, tokenization, mixing of tasks, batches."""
