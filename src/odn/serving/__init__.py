"""A finished model in use: opened from a file, a folder or the registry, asked for predictions, and served over HTTP."""
