"""Beta: what it is over a run (policies), how a network is told it (conditioning), what others call it (conversion)."""
