"""Components that training recipes share: loop, checkpoints, feed, losses and limits."""
