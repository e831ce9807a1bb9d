"""What happened in training, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

Record = dict[str, float]


@dataclass
class History:
    """One record an epoch, and notes on whatever was out of the ordinary.

    Every record has epoch, step, beta and learning_rate at the epoch's end, distortion, rate and loss as means over
    the epoch's training rows, in nats per row, and seconds since the start; with held-out rows also
    held_out_distortion, held_out_rate and held_out_loss at the fixed evaluation beta.
    """

    records: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = False
    verdict: str = ""

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __getitem__(self, column: str) -> list[float]:
        """One column as a list; NaN where a record has no such value."""
        return [record.get(column, math.nan) for record in self.records]

    def columns(self) -> dict[str, list[float]]:
        """All columns."""
        names = dict.fromkeys(name for record in self.records for name in record)
        return {name: self[name] for name in names}

    @property
    def best(self) -> Record:
        """The record of the epoch that model selection chose: the lowest held-out loss, else the last."""
        held_out = [r for r in self.records if math.isfinite(r.get("held_out_loss", math.nan))]
        return min(held_out, key=lambda r: r["held_out_loss"]) if held_out else self.records[-1]
