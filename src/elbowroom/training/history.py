"""The record of training, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

Record = dict[str, float]
ALWAYS = ("epoch", "step", "beta", "learning_rate", "distortion", "rate", "loss", "seconds")  # in every record


@dataclass
class History:
    """One record per epoch, and notes on unusual events.

    Every record has epoch, step, beta and learning_rate at the end of the epoch; distortion, rate and loss, means over
    its training rows in nats per row; and seconds since the start. With held-out rows, it also has held_out_distortion,
    held_out_rate and held_out_loss at the fixed evaluation beta; with a target distortion, target_met, 1 or 0.
    `products` is the backend of matrix products (`elbowroom.utils.matmul`), on which the last bits of the weights
    depend.
    """

    records: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = False
    verdict: str = ""
    products: str = "default"

    @classmethod
    def of(cls, saved: Any) -> Self:
        """A history from its JSON form.

        Raises
        ------
        ValueError, TypeError
            If it is not the history of a model that was trained for at least one epoch.
        """
        history = cls(**saved)
        check_records(history.records)
        if not history.records:
            raise ValueError("the history has no records")
        texts = [history.verdict, history.products, *(history.notes if isinstance(history.notes, list) else [None])]
        if type(history.complete) is not bool or not all(isinstance(text, str) for text in texts):
            raise ValueError("the notes of the history are not strings, or it does not state whether it is complete")
        return history

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
        """The record of the epoch that model selection chose.

        This is the epoch with the lowest held-out loss; with a target distortion, the one with the largest beta among
        those that met it; otherwise the last.
        """
        held_out = [r for r in self.records if math.isfinite(r.get("held_out_loss", math.nan))]
        if held_out:
            return min(held_out, key=lambda r: r["held_out_loss"])
        met = [r for r in self.records if r.get("target_met")]
        return max(met, key=lambda r: (r["beta"], r["epoch"])) if met else self.records[-1]

    @property
    def final_beta(self) -> float:
        """The beta of the model: of the selected epoch if there was a target distortion, else of the last one."""
        return (self.best if "target_met" in self.records[-1] else self.records[-1])["beta"]


def check_records(records: Any) -> None:
    """Raise unless these are the records of successive epochs.

    Raises
    ------
    ValueError
        At the first error.
    """
    if not isinstance(records, list):
        raise ValueError("the history has no list of records")
    for epoch, record in enumerate(records, 1):
        if not isinstance(record, dict) or not {*ALWAYS} <= {*record}:
            raise ValueError(f"record {epoch} of the history is incomplete")
        if not all(type(value) is float or (type(value) is int and abs(value) < 2**63) for value in record.values()):
            raise ValueError(f"record {epoch} of the history holds values that are not numbers")
        if record["epoch"] != epoch or not all(math.isfinite(record[name]) for name in ("step", "beta", "seconds")):
            raise ValueError(f"record {epoch} of the history has no valid epoch")
