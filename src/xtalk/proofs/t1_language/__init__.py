"""Theorem T1 for the tail of a language model."""
