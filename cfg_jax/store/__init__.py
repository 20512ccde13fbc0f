"""What is kept of a run: weights with their config, checkpoints, averages of the parameters."""
