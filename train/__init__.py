"""Training recipes for segclip's weights: one file per recipe, each reads top to bottom."""
