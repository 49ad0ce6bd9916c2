"""Backbones as stem, blocks and heads."""
