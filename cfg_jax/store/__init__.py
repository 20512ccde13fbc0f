"""The files of a run: checkpoints, averages of the parameters, weights with their config."""
