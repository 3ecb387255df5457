"""Recipes that make segclip's weights: one file a recipe, each reads top to bottom."""
