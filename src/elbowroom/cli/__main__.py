"""`python -m elbowroom.cli` is `elbowroom`."""

from elbowroom.cli import main

main()
