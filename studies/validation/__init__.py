"""docs/validation.md: which measure predicts interventions?"""
