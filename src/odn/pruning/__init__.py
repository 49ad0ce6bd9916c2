"""Prune while training: gates on blocks and channels learn with the weights, and what they close is cut."""
