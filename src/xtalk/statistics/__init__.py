"""Intervals, bootstrap, correlation, association."""
