"""Counter-based randomness: a stream is a pure function of the seed and of the place in the run where it is used."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.special import ndtri

from elbowroom.errors import ParameterError


def seed_of(seed: int, *place: object) -> int:
    """A 63-bit seed from the run's seed and a place such as ("noise", step)."""
    digest = hashlib.blake2b(repr((seed, *place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_at(seed: int, *place: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for a place in the run; the same place gives the same numbers, whatever was drawn before."""
    return torch.Generator(device=device).manual_seed(seed_of(seed, *place))


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Context manager in which modules of this thread draw weights, dropout and sampled items from `generator`."""
    token = _GENERATOR.set(generator)
    try:
        yield
    finally:
        _GENERATOR.reset(token)


def module_generator() -> torch.Generator | None:
    """The generator that modules draw from; None, for torch's global stream, outside of `drawing_from`."""
    return _GENERATOR.get()


_GENERATOR: ContextVar[torch.Generator | None] = ContextVar("generator", default=None)


def resolve_seed(random_state: Any) -> int:
    """An int seed from scikit-learn's `random_state`; None draws fresh entropy, never from NumPy's global stream."""
    if random_state is None:
        return secrets.randbits(31)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool) and random_state >= 0:
        return int(random_state)
    raise ParameterError(
        "random_state must be None, a whole number from 0 or a NumPy generator",
        f"it is {random_state!r}",
        "Write random_state=0 for a reproducible run.",
    )


def normal_by_row(rows: Any, draws: int, size: int, counter: Occurrences | None = None) -> np.ndarray:
    """Standard normal noise (draws, n, size) that depends only on each row's content.

    A row's score is then batch-invariant, and the errors of different rows are independent. With a counter, the errors
    of equal rows are independent too, as a standard error over rows assumes. The counter-based generator is SplitMix64
    (Steele et al. 2014), keyed by a hash of the row, which is equal for a scipy CSR matrix and an array.
    """
    with np.errstate(over="ignore"):
        keys = _mix(_sparse_sums(rows) if sparse.issparse(rows) else _sums(rows))
        if counter is not None:
            keys += _mix(counter.count(keys) * _GOLDEN)  # zero for a first occurrence
        counters = np.arange(1, draws * size + 1, dtype=np.uint64) * _GOLDEN
        bits = _mix(keys[None, :, None] + counters.reshape(draws, 1, size))
    return ndtri((bits >> np.uint64(12)).astype(np.float64) * 2.0**-52 + 2.0**-53)  # in the open interval (0, 1)


class Occurrences:
    """Counts how often each row has occurred before, over successive batches of rows."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}

    def count(self, keys: np.ndarray) -> np.ndarray:
        """The number (n,) of equal keys before each key, uint64."""
        order = np.argsort(keys, kind="stable")
        known, first, counts = np.unique(keys[order], return_index=True, return_counts=True)
        within = np.arange(len(keys)) - first.repeat(counts)
        before = np.array([self.seen.get(key, 0) for key in known.tolist()], np.int64)
        self.seen.update(zip(known.tolist(), (before + counts).tolist(), strict=True))
        earlier = np.empty(len(keys), np.uint64)
        earlier[order] = within + before.repeat(counts)
        return earlier


def _sums(rows: np.ndarray) -> np.ndarray:
    words = _words(rows).reshape(len(rows), -1)
    return _hashed(words, np.arange(words.shape[1])).sum(1, dtype=np.uint64)


def _sparse_sums(rows: Any) -> np.ndarray:
    """The same sums from the stored values: zeros add nothing."""
    terms = _hashed(_words(rows.data), rows.indices)
    so_far = np.concatenate([np.zeros(1, np.uint64), terms.cumsum(dtype=np.uint64)])  # modulo 2^64, so exact
    return so_far[rows.indptr[1:]] - so_far[rows.indptr[:-1]]


def _words(values: np.ndarray) -> np.ndarray:
    return (np.ascontiguousarray(values, dtype=np.float64) + 0.0).view(np.uint64)  # -0.0 becomes 0.0


def _hashed(words: np.ndarray, columns: np.ndarray) -> np.ndarray:
    keys = _mix((columns.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return _mix(words) * (keys | np.uint64(1))


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


ONE_STREAM = threading.RLock()


@contextmanager
def own_stream(seed: int) -> Iterator[None]:
    """Seed torch's global stream, which custom modules draw from, then restore it; one thread at a time."""
    with ONE_STREAM, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
