"""The network that was found as files for the runtimes that devices have, and the proof that each computes the same."""
