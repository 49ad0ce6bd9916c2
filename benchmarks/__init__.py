"""Programs that measure: how fast ODN trains, beside the usual ways."""
