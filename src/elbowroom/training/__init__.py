"""Training: the trainer, its loop, controllers of beta, the optimiser, checkpoints, history."""
