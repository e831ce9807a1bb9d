"""Recommendation: lists of items for users, their scores, their metrics, and baselines."""
