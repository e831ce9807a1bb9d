"""What one competitor is asked to do, and the stopwatch it reports to."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Job:
    """One training run, in plain values, so that it can cross to another process as JSON."""

    competitor: str
    batch: int
    epochs: int
    seed: int
    rows_file: str
    start_file: str

    @classmethod
    def read(cls, file: Path) -> "Job":
        """The job written to `file` by `write`."""
        return cls(**json.loads(file.read_text()))

    def write(self, file: Path) -> None:
        """Write the job to `file` as JSON."""
        file.write_text(json.dumps(asdict(self)))

    def rows(self) -> np.ndarray:
        """The training rows, a fresh (rows, 784) array of uint8 zeros and ones."""
        return np.load(self.rows_file)

    def start(self) -> dict[str, np.ndarray]:
        """The weights to start from, the same for every competitor of a round (see network.py)."""
        with np.load(self.start_file) as arrays:
            return dict(arrays)


@dataclass
class Stopwatch:
    """The wall-clock marks of one training run: one when training starts, one at each epoch's end."""

    marks: list[float] = field(default_factory=list)
    note: str = ""

    def mark(self) -> None:
        """Note the time now."""
        self.marks.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        """The duration of every epoch."""
        return [end - start for start, end in zip(self.marks, self.marks[1:], strict=False)]
