"""Peers that odn is measured against: each a program or a function of its own, given the same splits."""
