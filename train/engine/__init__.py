"""What every recipe of training is made of: loops, checkpoints, feeds, losses, limits."""
