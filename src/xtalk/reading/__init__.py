"""One reading of a crosscoder in a model: what evaluation, clustering and detection all look at."""
