"""Estimators with scikit-learn's contract, and what they share."""
