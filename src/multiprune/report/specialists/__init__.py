"""The report on specialists that were cut out of one model."""
