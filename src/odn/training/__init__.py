"""One network, one split, one device."""
