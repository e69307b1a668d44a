"""Language models: loading, hookpoints, capture and splicing."""
