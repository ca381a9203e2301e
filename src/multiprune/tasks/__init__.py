"""What is learned: columns, label space, loss and metrics of each kind of task."""
