"""Embed the regions of an image: how they are cropped, and how they become embeddings."""
