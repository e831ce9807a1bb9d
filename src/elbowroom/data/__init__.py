"""What a user brings, as rows to train on, and back in the user's kind."""
