"""Training: the loop, the learning-rate schedules and the checkpoints."""
