"""The work of each step of a run."""
