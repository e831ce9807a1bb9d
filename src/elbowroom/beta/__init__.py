"""Beta: its value over a run (policies), as an input of networks (conditioning), in other systems (conversion)."""
