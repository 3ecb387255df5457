"""Background jobs of the pages: batches, indexing, training."""
