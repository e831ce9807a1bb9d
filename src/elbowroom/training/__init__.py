"""Training: the trainer, its plan, controllers of beta, the optimiser, checkpoints, history."""
