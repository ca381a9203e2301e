"""Reading and writing the files of runs: records, status, masks, predictions."""
