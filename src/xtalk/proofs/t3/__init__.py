"""Theorem T3: every sequence of n tokens."""
