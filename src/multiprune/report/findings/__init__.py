"""What runs say when they are put side by side: numbers, before anything is shown."""
