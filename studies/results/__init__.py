"""docs/results.md, results-sweep.md, results-embedded.md, results-variations.md: fidelity and interaction."""
