"""Train all depths, and widths, of a network at once, and pick networks out of it without training."""
