"""Tests run on one thread: the same bits everywhere, and no fight over the cores of a shared machine."""

from __future__ import annotations

import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from hypothesis import settings

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with Ctrl-C ignored
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and those of nohup without a closed terminal
torch.set_num_threads(1)
settings.register_profile("elbowroom", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("elbowroom")


@pytest.fixture(autouse=True)
def seed() -> None:
    """Weights of new modules come from the global stream: every test finds it at the same place."""
    torch.manual_seed(0)
