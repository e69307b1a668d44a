"""Slow, obvious twins of the fast paths, and their comparison on the machine at hand: `xtalk selftest`.

The tests of the fast paths take the twins from here.
"""
