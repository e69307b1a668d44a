"""Theorem T1: a finite data set."""
