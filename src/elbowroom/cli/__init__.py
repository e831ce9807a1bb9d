"""The command line: `elbowroom demo | fit | ...`."""

from elbowroom.cli.app import app, main, run

__all__ = ["app", "main", "run"]
