"""The hot paths timed against the obvious ways to do the same: `xtalk bench`, from a checkout."""
