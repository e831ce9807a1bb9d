"""Interactions of users and items: ids, matrices, splits."""
