"""Embeddings: their column type, and the binary formats they travel in."""
