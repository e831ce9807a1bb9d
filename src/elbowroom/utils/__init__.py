"""Utilities that do not depend on VAEs: text forms, counter-based randomness, files, progress, signals, devices."""
