"""The folders of the package."""

from __future__ import annotations

# The trip of a batch, and the reading order: a folder imports only from folders above it.
FOLDERS = [
    "errors",
    "utils",
    "data",
    "distributions",
    "nn",
    "likelihoods",
    "latents",
    "beta",
    "models",
    "objectives",
    "training",
    "tasks",
    "report",
    "persistence",
    "estimators",
    "__init__",
    "cli",
]
