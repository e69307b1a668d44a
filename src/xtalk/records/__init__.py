"""What was measured, as the records that reports show: of runs and of single dictionaries."""
