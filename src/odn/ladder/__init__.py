"""Climb a ladder of networks: each rung is trained anew, annealed and judged once, until one reaches the target."""
