"""What is handed over: a folder that loads without this package."""
