"""Raw files to tensors."""
