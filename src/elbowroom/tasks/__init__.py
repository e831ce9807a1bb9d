"""What a trained model is for, a task a file."""
