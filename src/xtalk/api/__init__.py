"""The library functions behind xtalk's flat names: a model, a crosscoder and texts in, figures out."""
