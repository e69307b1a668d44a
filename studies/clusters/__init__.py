"""docs/clusters.md: do clusters of features mean something?"""
