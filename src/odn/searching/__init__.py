"""How the depth is found."""
