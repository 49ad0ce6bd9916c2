"""Find how deep a neural network needs to be for a data set, cut it there, prove it and ship it."""

__version__ = "0.1.0"
