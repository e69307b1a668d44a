"""Theorem T2: regions of inputs."""
