"""Measure and stamp the weights that ship."""
