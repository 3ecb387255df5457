"""Read captions, and know how words are related."""
