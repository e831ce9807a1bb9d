"""The user's data as rows to train on, and results in the user's types."""
