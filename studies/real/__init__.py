"""docs/results-smollm2.md: do the claims hold on a real model?"""
