"""The training loop: batches by index, no host sync per step, exact resume, best-model selection."""

from __future__ import annotations

import copy
import hashlib
import math
import signal
import threading
import time
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from elbowroom.beta import Beta
from elbowroom.checkpoints import Checkpoints
from elbowroom.data.rows import BinarizedRows, Rows
from elbowroom.devices import PRECISIONS, autocast, device_of, fast_products, keep_memory, product_backend
from elbowroom.errors import ArtefactError, ElbowroomWarning, ParameterError, TrainingError, unknown
from elbowroom.history import History, Record
from elbowroom.objectives import Elbo, Objective, distortion_of
from elbowroom.optimiser import Optimiser, learning_rate_at
from elbowroom.progress import Progress
from elbowroom.randomness import generator_at
from elbowroom.vae import VAE


@dataclass(frozen=True)
class Trainer:
    """How to train: settings that are the same for every model and every data set.

    The order of the rows is a function of (seed, epoch) and the noise of (seed, step), so that a run which was killed
    and resumed ends with the same bits as one which was not.

    Parameters
    ----------
    epochs, batch_size : int
        The last, smaller batch of an epoch is used too.
    learning_rate : float
        Peak of the schedule: a short linear warm-up, then half a cosine to 0.
    clip : float
        Longest gradient norm, in nats.
    average : bool
        Evaluate and keep an exponential moving average of the weights.
    patience : int or None
        Stop when the held-out loss has not improved for this many epochs; None never stops early.
    """

    epochs: int = 100
    batch_size: int = 128
    learning_rate: float = 1e-3
    clip: float = 100.0
    average: bool = True
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("patience", 1)):
            value = getattr(self, name)
            if not (name == "patience" and value is None) and (type(value) is not int or value < least):
                raise ParameterError(
                    f"{name} must be a whole number, at least {least}", f"it is {value!r}", "Correct it."
                )
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ParameterError(f"{name} must be positive", f"it is {getattr(self, name)!r}", "Try 0.001.")
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)

    def fit(
        self,
        model: VAE,
        rows: Rows,
        beta: Beta,
        objective: Objective | None = None,
        held_out: Rows | None = None,
        checkpoints: Checkpoints | None = None,
        progress: Progress | None = None,
    ) -> History:
        """Train a model in place on rows, and return the history.

        The model ends with the weights of the epoch with the lowest held-out loss at the policy's final beta, or
        those of the last epoch where there are no held-out rows. If `checkpoints` has a run with these settings, that
        run is continued. Ctrl-C after the first epoch keeps the model trained so far; the history says so.

        Raises
        ------
        TrainingError
            If no step of an epoch has a finite loss.
        ArtefactError
            If the checkpoints are of another run, or all broken.
        """
        device = device_of(self.device)
        move(model, device)
        likelihood = model.likelihood
        train = with_base(rows, likelihood).to(device)
        test = with_base(held_out, likelihood).to(device) if held_out is not None else None
        run = Run(self, model, train, beta, objective or Elbo(), test, checkpoints)
        run.resume()
        with fast_products(run.backend), progress or Progress(self.epochs, silent=True) as shown:
            run.train(shown)
        move(model, torch.device("cpu"))
        return run.history


@dataclass
class Run:
    """One training run: all that changes while it goes on."""

    settings: Trainer
    model: VAE
    rows: Rows
    beta: Beta
    objective: Objective
    held_out: Rows | None
    checkpoints: Checkpoints | None
    step: int = 0
    history: History = field(default_factory=History)

    def __post_init__(self) -> None:
        self.averaged = copy.deepcopy(self.model) if self.settings.average else self.model
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        copies = [p for p in self.averaged.parameters() if p.requires_grad]
        self.optimiser = Optimiser(self.parameters, copies if self.settings.average else (), self.settings.clip)
        self.device = self.parameters[0].device
        self.best = {name: p.detach().clone() for name, p in self.averaged.named_parameters()}
        self.totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        self.steps_per_epoch = math.ceil(len(self.rows) / self.settings.batch_size)
        self.backend = product_backend() if self.device.type == "cpu" else "default"
        self.started = time.monotonic()
        self.saved = self.started

    @property
    def epoch(self) -> int:
        """Epochs that have ended."""
        return len(self.history)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.settings.epochs * self.steps_per_epoch

    def train(self, progress: Progress) -> None:
        """Train to the end, to an early stop or to Ctrl-C, and leave the selected weights in the model."""
        keep_memory()
        with Interrupt() as interrupt:
            while self.epoch < self.settings.epochs and not self._out_of_patience():
                self._train_epoch(interrupt)
                if interrupt.came:
                    break
                progress.epoch(self.epoch, self.history.records[-1])
        self.history.complete = not interrupt.came
        self._save()
        if interrupt.came:
            self._stop_early()
        for count in filter(None, [int(self.optimiser.skipped)]):
            self._note(f"{count} of {self.step} steps had no finite gradient and were skipped")
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(self.best[name])

    def _train_epoch(self, interrupt: Interrupt) -> None:
        start = self.epoch * self.steps_per_epoch
        order = torch.randperm(len(self.rows), generator=generator_at(self.settings.seed, "order", self.epoch))
        order = order.to(self.device)
        size = self.settings.batch_size
        while self.step < start + self.steps_per_epoch:
            at = (self.step - start) * size
            self._train_step(order[at : at + size])
            if interrupt.came:
                return
            if self.checkpoints is not None and time.monotonic() - self.saved >= self.checkpoints.every:
                self._save()
        self._end_epoch()

    def _train_step(self, index: Tensor) -> None:
        noise = generator_at(self.settings.seed, "noise", self.step, device=self.device)
        beta = self.beta.at(self.step / max(1, self.total_steps - 1))
        batch = self.rows.batch(index, noise)
        with autocast(self.settings.precision, self.device):
            terms = self.objective(self.model, *batch, noise)
            loss = terms.loss(beta).mean()
        loss.backward()
        rate = learning_rate_at(self.settings.learning_rate, (self.step + 0.5) / self.total_steps)
        self.optimiser.step(self.step, rate)
        with torch.no_grad():
            n = len(index)
            sums = torch.stack([terms.distortion.mean() * n, terms.rate.mean() * n, torch.full_like(loss, n)])
            self.totals += sums.where(sums.isfinite().all(), 0)
        self.step += 1

    def _end_epoch(self) -> None:
        distortion, rate, seen = self.totals.tolist()
        self.totals.zero_()
        if not seen:
            self._fail()
        distortion, rate = distortion / seen, rate / seen
        beta = self.beta.at((self.step - 1) / max(1, self.total_steps - 1))
        record: Record = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "beta": beta,
            "learning_rate": learning_rate_at(self.settings.learning_rate, (self.step - 0.5) / self.total_steps),
            "distortion": distortion,
            "rate": rate,
            "loss": distortion + beta * rate,
        }
        if self.held_out is not None:
            record |= self._evaluate(self.held_out)
        record["seconds"] = time.monotonic() - self.started
        self._select(record)

    def _select(self, record: Record) -> None:
        """Add the epoch's record and keep its weights if it is the best."""
        self.history.records.append(record)
        if self.history.best is record:
            with torch.no_grad():
                for name, p in self.averaged.named_parameters():
                    self.best[name].copy_(p)

    @torch.no_grad()
    def _evaluate(self, rows: Rows) -> Record:
        """Held-out distortion, rate and loss of the averaged weights, with the same noise in every epoch."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for i, index in enumerate(torch.arange(len(rows), device=self.device).split(1024)):
            noise = generator_at(self.settings.seed, "held-out", i, device=self.device)
            batch = rows.batch(index, noise)
            outcome = self.averaged(batch.x, batch.context, noise)
            sums += torch.stack(
                [distortion_of(outcome, batch.x, batch.base).double().sum(), outcome.rate.double().sum()]
            )
        distortion, rate = (sums / len(rows)).tolist()
        loss = distortion + self.beta.final * rate
        return {"held_out_distortion": distortion, "held_out_rate": rate, "held_out_loss": loss}

    def _out_of_patience(self) -> bool:
        if self.settings.patience is None or self.held_out is None or not self.history.records:
            return False
        waited = self.epoch - int(self.history.best["epoch"])
        if waited >= self.settings.patience:
            progress = self.step / self.total_steps
            self._note(
                f"stopped early after epoch {self.epoch} of {self.settings.epochs}: the held-out loss has not improved "
                f"for {waited} epochs; beta was {self.beta.at(progress):g} of a final {self.beta.final:g}"
            )
            return True
        return False

    def _stop_early(self) -> None:
        """What Ctrl-C means: keep the model of the last epoch that ended, or give up where there is none."""
        if not self.history.records:
            raise KeyboardInterrupt
        self._note(
            f"training was interrupted in epoch {self.epoch + 1} of {self.settings.epochs}; "
            f"the model of epoch {self.history.best['epoch']} is kept"
        )

    def _fail(self) -> None:
        raise TrainingError(
            "the loss must be finite",
            f"no step of epoch {self.epoch + 1} had a finite loss",
            "Lower learning_rate, look for extreme values in the data, or choose a likelihood with heavier tails.",
        )

    def _note(self, message: str) -> None:
        self.history.notes.append(message)
        warnings.warn(message, ElbowroomWarning, stacklevel=2)

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        facts = {
            "run": self.identity,
            "step": self.step,
            "records": self.history.records,
            "complete": self.history.complete,
            "backend": self.backend,
            "seconds": time.monotonic() - self.started,
        }
        self.checkpoints.save(self.step, self._tensors(), facts)
        self.saved = time.monotonic()

    def resume(self) -> None:
        """Go on from the newest good checkpoint, if there is one."""
        loaded = self.checkpoints.load() if self.checkpoints is not None else None
        if loaded is None:
            return
        tensors, facts = loaded
        differing = [key for key, value in self.identity.items() if facts["run"].get(key) != value]
        if differing:
            key = differing[0]
            raise ArtefactError(
                f"the run in {self.checkpoints.folder} must be the one that is resumed",  # type: ignore[union-attr]
                f"its {key} is {facts['run'].get(key)!r}, not {self.identity[key]!r}",
                "Use the settings and the data of that run, or another folder.",
            )
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(tensors[name])
        self.step, self.backend = facts["step"], facts["backend"]
        self.history.records = facts["records"]
        self.started -= facts["seconds"]

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that changes from step to step."""
        state = {f"optimiser.{name}": t for name, t in self.optimiser.state().items()}
        state |= {f"best.{name}": t for name, t in self.best.items()}
        state |= {f"model.{name}": p for name, p in self.model.named_parameters()}
        if self.averaged is not self.model:
            state |= {f"averaged.{name}": p for name, p in self.averaged.named_parameters()}
        return state | {"totals": self.totals}

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this run this run: settings, objective, data and the shape of the model."""
        settings = {k: v for k, v in asdict(self.settings).items() if k != "device"}
        shapes = {name: list(p.shape) for name, p in self.model.named_parameters()}
        data = {"data": digest(self.rows), "held-out data": digest(self.held_out)}
        return settings | data | {"beta": str(self.beta), "objective": str(self.objective), "parameters": shapes}


class Interrupt:
    """Ctrl-C, waited for: within this context SIGINT only sets `came`, so that a step is never cut in two."""

    def __enter__(self) -> Self:
        self.came = False
        self.previous: Any = None
        if threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, *exception: object) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)

    def _take(self, *_: object) -> None:
        if self.came:  # the second Ctrl-C does not wait
            raise KeyboardInterrupt
        self.came = True


def with_base(rows: Rows, likelihood: Any) -> Rows:
    """The rows with the part of their log-probability that no gradient sees, computed once; drawn rows have none."""
    if isinstance(rows, BinarizedRows) or rows.base is not None:
        return rows
    with torch.no_grad():
        p = likelihood(likelihood.bias.new_zeros(1, likelihood.n_outputs)) if hasattr(likelihood, "bias") else None
        if not hasattr(p, "log_base"):
            return rows
        at = torch.arange(len(rows)).split(4096)
        base = torch.cat([p.log_base(rows.dense(index)).expand(len(index)) for index in at])
    return rows.with_base(base.float())


def digest(rows: Rows | None) -> str:
    """A checksum of the rows: of all where they are few, of 4,096 evenly spaced ones where they are many."""
    if rows is None:
        return "none"
    content = rows.spread(4096).contiguous().numpy(force=True).tobytes()
    context = b"" if rows.context is None else rows.context.numpy(force=True).tobytes()
    return hashlib.blake2b(content + context + str(len(rows)).encode(), digest_size=16).hexdigest()


def move(model: torch.nn.Module, device: torch.device) -> None:
    """Move a model; MPS has no float64, which some units of the data are kept in."""
    if device.type == "mps":
        model.float()
    model.to(device)
