"""Crops with names: how they are stored, what they may be called, what the mini CLIP is."""
