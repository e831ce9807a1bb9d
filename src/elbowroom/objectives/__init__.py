"""Objectives: from a model's output to the distortion, rate and penalty of every row."""
