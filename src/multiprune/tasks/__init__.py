"""Task types: columns, labels, loss and metrics of each."""
