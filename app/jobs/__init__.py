"""What goes on beside the pages: batches, indexing, training."""
