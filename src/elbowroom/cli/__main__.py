"""`python -m elbowroom.cli` is `elbowroom`."""

from elbowroom.cli.app import main

main()
