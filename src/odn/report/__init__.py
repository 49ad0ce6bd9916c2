"""Tell a person what a search found: as a short summary in a terminal, and as a page with pictures."""
