"""Embed the regions of an image: how they are cut, and how crops or dense features become
embeddings.
"""
