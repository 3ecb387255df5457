"""Crops with names: storage, candidate texts, and the architecture of the mini CLIP."""
