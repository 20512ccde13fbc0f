"""From a config to a checkpointed run: devices, state, checkpoints, the training loop."""
