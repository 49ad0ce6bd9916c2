"""One file a stage: load, call the core, write."""
