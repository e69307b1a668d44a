"""The hot paths timed against the obvious ways to do the same: `python -m benchmarks`, or `xtalk bench`."""
