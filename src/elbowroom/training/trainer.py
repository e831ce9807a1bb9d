"""The training loop: batches by index, no host synchronisation in steps, exact resume, best-model selection."""

from __future__ import annotations

import copy
import math
import os
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from elbowroom.beta.policies import Beta, Schedule
from elbowroom.data.dataset import Rows
from elbowroom.errors import ArtefactError, ParameterError, TrainingError, unknown, warn
from elbowroom.models.vae import VAE, previous_posteriors
from elbowroom.objectives.bounds import Elbo, Objective, terms_of
from elbowroom.objectives.terms import with_base
from elbowroom.training.beta_control import Drawn, control_of
from elbowroom.training.checkpoints import Checkpoints, checksum
from elbowroom.training.history import History, Record
from elbowroom.training.modules import describe, may_draw, placed, tensors_of
from elbowroom.training.optimizer import AVERAGE_EVERY, SCHEDULES, Optimiser, learning_rate_at
from elbowroom.utils.devices import PRECISIONS, autocast, device_of, keep_memory, reproducibility_info
from elbowroom.utils.matmul import fast_products, onednn_is_exact, product_backend
from elbowroom.utils.progress import Progress
from elbowroom.utils.randomness import ONE_STREAM, drawing_from, generator_at, seed_of
from elbowroom.utils.settings import flushed_denormals, standard_defaults
from elbowroom.utils.signals import Interrupt

EVALUATED = 1024  # held-out rows at once, times their draws


@dataclass(frozen=True)
class Trainer:
    """Training settings, which apply to every model and every data set.

    The order of the rows and the betas of a range are functions of (seed, epoch), the noise of (seed, step), so that a
    run that was killed and resumed ends with the same bits as an uninterrupted one.

    Parameters
    ----------
    epochs, batch_size : int
        Number of epochs, and rows per batch; the last, smaller batch of an epoch is used too.
    learning_rate : float
        Peak of the schedule.
    schedule : str
        What follows a short linear warm-up: "cosine", half a cosine down to 0, or "constant".
    clip : float
        Largest gradient norm, in nats.
    average : bool
        Evaluate and keep an exponential moving average of the weights.
    patience : int or None
        Stop when the held-out loss has not improved for this many epochs at the policy's final beta; None never stops
        early.
    """

    epochs: int = 100
    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    clip: float = 100.0
    average: bool = True
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("patience", 1), ("seed", 0)):
            value = getattr(self, name)
            if not (name == "patience" and value is None) and (type(value) is not int or value < least):
                expected = f"{name} must be a whole number, at least {least}"
                raise ParameterError(expected, f"it is {value!r}", "Correct it.")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ParameterError(f"{name} must be positive", f"it is {getattr(self, name)!r}", "Try 0.001.")
        for name, known in (("schedule", tuple(SCHEDULES)), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)

    @standard_defaults()
    def fit(
        self,
        model: VAE,
        rows: Rows,
        beta: Beta,
        objective: Objective | None = None,
        held_out: Rows | None = None,
        checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> History:
        """Train a model in place on rows, and return the history.

        The model ends with the weights of the epoch with the lowest held-out loss at the policy's final beta, or
        those of the last epoch if there are no held-out rows. If `checkpoints` has a run with these settings, that run
        is resumed. Ctrl-C after the first epoch keeps the model trained so far, and the history notes it. SIGTERM and
        SIGHUP do the same and then go to their handlers; the system's handlers end the process.

        Raises
        ------
        TrainingError
            If no step of an epoch has a finite loss and gradient. The model has the weights of the epochs before.
        ArtefactError
            If the checkpoints are of another run, all broken or in use, or can not be written when the run starts. If
            one can not be written later, there is a warning, and training continues.
        KeyboardInterrupt
            At Ctrl-C in the first epoch, or at a second Ctrl-C.
        """
        folder = None if checkpoints is None else Checkpoints(checkpoints)
        device, likelihood = device_of(self.device), model.to("cpu").likelihood
        train, test = (None if r is None else with_base(r, likelihood).to(device) for r in (rows, held_out))
        with placed(model, device), nullcontext() if folder is None else folder.held():
            run = Run(self, model, train, beta, objective or Elbo(), test, folder)  # type: ignore[arg-type]
            run.resume()
            shown = progress or Progress(self.epochs, silent=True)
            with fast_products(run.history.products), flushed_denormals(), shown:
                run.train(shown)
        return run.history


@dataclass
class Run:
    """One training run: its mutable state."""

    settings: Trainer
    model: VAE
    rows: Rows
    beta: Beta
    objective: Objective
    held_out: Rows | None = None
    checkpoints: Checkpoints | None = None
    step: int = 0
    history: History = field(default_factory=History)

    def __post_init__(self) -> None:
        self.averaged = copy.deepcopy(self.model) if self.settings.average else self.model
        parameters, copies = ([p for p in m.parameters() if p.requires_grad] for m in (self.model, self.averaged))
        self.optimiser = Optimiser(parameters, copies if self.settings.average else (), self.settings.clip)
        self.device = parameters[0].device
        self.best = {name: t.detach().clone() for name, t in tensors_of(self.averaged).items()}
        self.steps_per_epoch = math.ceil(len(self.rows) / self.settings.batch_size)
        self.control = control_of(self.beta, self.total_steps, self.device, self.model.conditioning)
        self.control.check(self.rows)
        # of every step of this epoch: beta, distortion, rate, loss, and whether it was taken
        self.seen = torch.zeros(self.steps_per_epoch, 5, device=self.device)
        self.may_draw = may_draw(self.model)
        self.history.products = product_backend() if self.device.type == "cpu" else "default"
        self.identity = {} if self.checkpoints is None else self._identify()
        self.started = time.monotonic()

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return len(self.history)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.settings.epochs * self.steps_per_epoch

    @property
    def waited(self) -> int:
        """Epochs since the best one, counted from when beta had its final value."""
        if not self.epoch or "held_out_loss" not in self.history.records[-1]:
            return 0
        since = self.history.records[int(self.history.best["epoch"]) :]
        return sum(not isinstance(self.beta, Schedule) or record["beta"] == self.beta.final for record in since)

    @property
    def ended(self) -> bool:
        """Whether all epochs are done, or patience is exhausted."""
        impatient = self.settings.patience is not None and self.waited >= self.settings.patience
        return impatient or self.epoch >= self.settings.epochs

    # ---- the loop --------------------------------------------------------------------------------------------------

    def train(self, progress: Progress) -> None:
        """Train to the end, to an early stop or to a signal, and leave the selected weights in the model."""
        keep_memory()
        alone = ONE_STREAM if self.may_draw else nullcontext()  # torch's global stream serves one run at a time
        remembered, kept = previous_posteriors(self.model, self.averaged), torch.random.fork_rng(enabled=self.may_draw)
        with alone, remembered, kept, Interrupt() as interrupt, torch.enable_grad():
            while not self.ended and not interrupt.came:
                self._train_epoch(interrupt, progress)
            if not self.history.complete:
                self.history.complete = self.ended
                self._save()  # within, so that Ctrl-C does not lose the trained weights
        self._add_notes()
        self._take_best()

    def _train_epoch(self, interrupt: Interrupt, progress: Progress) -> None:
        order = torch.randperm(len(self.rows), generator=generator_at(self.settings.seed, "order", self.epoch))
        batches = order.to(self.device).split(self.settings.batch_size)
        draws = self.control.draws(batches, generator_at(self.settings.seed, "betas", self.epoch, device=self.device))
        self.model.train()
        steps = zip(batches, draws, strict=True)
        for index, drawn in islice(steps, self.step - self.epoch * self.steps_per_epoch, None):
            self._train_step(index, drawn)
            if interrupt.came and self.step % self.steps_per_epoch:
                return
            if self.checkpoints is not None and self.checkpoints.due:
                self._save()
        self._end_epoch()
        progress.epoch(self.epoch, self.history.records[-1])

    def _train_step(self, index: Tensor, drawn: Drawn) -> None:
        seed, step = self.settings.seed, self.step
        noise = generator_at(seed, "noise", step, device=self.device)
        if self.may_draw:
            torch.manual_seed(seed_of(seed, "modules", step))
        batch = self.rows.batch(index, noise)
        drawn_in_modules = drawing_from(generator_at(seed, "modules", step, device=self.device))
        with drawn_in_modules, autocast(self.settings.precision, self.device):
            terms = terms_of(self.objective, self.model, batch, noise, drawn.code)
            beta = self.control.step(self._progress(step), batch.x, terms, drawn.betas)
            loss = terms.loss(beta).mean()
        loss.backward()
        taken = self.optimiser.step(loss, self._learning_rate(step))
        at = step % self.steps_per_epoch
        with torch.no_grad():
            mean = torch.as_tensor(beta, dtype=loss.dtype, device=self.device).mean()
            torch.stack((mean, terms.distortion.mean(), terms.rate.mean(), loss, taken), out=self.seen[at])
        since, last = at % AVERAGE_EVERY + 1, at == self.steps_per_epoch - 1
        if since == AVERAGE_EVERY or last:  # at the end of every epoch, so that the average includes all of its steps
            self.optimiser.average(step + 1, since)
        self.step += 1

    def _progress(self, step: int) -> float:
        return step / (self.total_steps - 1) if step else float(self.total_steps == 1)

    def _learning_rate(self, step: int) -> float:
        return learning_rate_at(self.settings.learning_rate, (step + 0.5) / self.total_steps, self.settings.schedule)

    # ---- the end of an epoch ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def _end_epoch(self) -> None:
        last = self.step - 1
        beta, *means = self._means()
        record: Record = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "beta": self.beta.at(self._progress(last)) if isinstance(self.beta, Schedule) else beta,
            "learning_rate": self._learning_rate(last),
            **dict(zip(("distortion", "rate", "loss"), means, strict=True)),
        }
        for old, new in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            old.copy_(new)  # running statistics are averages already
        if self.held_out is not None:
            record |= self._evaluate(self.held_out)
        record |= self.control.judge(record)
        record["seconds"] = time.monotonic() - self.started
        self.history.records.append(record)
        if self.history.best is record:
            for name, tensor in tensors_of(self.averaged).items():
                self.best[name].copy_(tensor)

    def _means(self) -> list[float]:
        """Means over the rows of the epoch, without skipped steps."""
        seen = self.seen.cpu().double()
        sizes = torch.full((len(seen),), self.settings.batch_size, dtype=torch.float64)
        sizes[-1] = len(self.rows) - sizes[:-1].sum()
        taken = seen[:, -1] == 1
        if not taken.any():
            self._fail()
        return ((seen[taken, :-1] * sizes[taken, None]).sum(0) / sizes[taken].sum()).tolist()

    def _evaluate(self, rows: Rows) -> Record:
        """Held-out distortion, rate and loss of the objective, with averaged weights and the same noise at each epoch.

        The loss is that of the objective, since the bound of several draws differs from that of one: with the latter,
        a wrong epoch would be selected.
        """
        parts, settled, model = [], self.control.settled(self._progress(self.step - 1)), self.averaged.eval()
        size = max(1, EVALUATED // getattr(self.objective, "draws", 1))
        for i, index in enumerate(self.control.looks(len(rows)).split(size)):
            noise = generator_at(self.settings.seed, "held-out", i, device=self.device)
            batch, drawn = rows.batch(index, noise), self.control.draw(len(index))
            terms = terms_of(self.objective, model, batch, noise, drawn.code)
            beta = self.control.final(batch.x, drawn.betas) if settled else None
            loss = [] if beta is None else [terms.loss(beta)]
            each = (part.mean(0) if part.dim() > 1 else part for part in (terms.distortion, terms.rate))
            parts.append(torch.stack([*each, *loss]))
        means = torch.cat(parts, 1).cpu().double().mean(1).tolist()
        names = ("held_out_distortion", "held_out_rate", "held_out_loss")
        return dict(zip(names, means, strict=False))

    # ---- the end of the run ----------------------------------------------------------------------------------------

    def _add_notes(self) -> None:
        """Add notes on anything unusual. Ctrl-C in the first epoch leaves no model and is raised."""
        epochs = self.settings.epochs
        if not self.ended and not self.epoch:
            raise KeyboardInterrupt
        last = self.history.records[-1]
        if not self.ended:
            best = int(self.history.best["epoch"])
            self._note(f"interrupted in epoch {self.epoch + 1} of {epochs}; the model of epoch {best} is kept")
        elif self.epoch < epochs:
            moved = (
                f"; beta was {last['beta']:g} of a final {self.beta.final:g}" if isinstance(self.beta, Schedule) else ""
            )
            self._note(
                f"stopped early after epoch {self.epoch} of {epochs}: the held-out loss has not improved for "
                f"{self.waited} epochs{moved}"
            )
        elif note := self.control.note(self.history.best):
            self._note(note)
        if skipped := self.step - int(self.optimiser.count):
            self._note(f"{skipped} of {self.step} steps had no finite loss and gradient and were skipped")

    def _note(self, message: str) -> None:
        self.history.notes.append(message)
        warn(message, 2)

    @torch.no_grad()
    def _take_best(self) -> None:
        for name, tensor in tensors_of(self.model).items():
            tensor.copy_(self.best[name])

    def _fail(self) -> None:
        kept = "the initial ones"
        if self.epoch:
            self._take_best()
            kept = f"those of epoch {self.history.best['epoch']}"
        raise TrainingError(
            "the loss and its gradient must be finite",
            f"no step of epoch {self.epoch + 1} was; the model's weights are {kept}",
            "Lower learning_rate, look for extreme values in the data, or choose a likelihood with heavier tails.",
        )

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        facts = {
            "run": self.identity,
            "step": self.step,
            "records": self.history.records,
            "complete": self.history.complete,
            "seconds": time.monotonic() - self.started,
            "backend": self.history.products,
            "circumstances": reproducibility_info(self.device),
        }
        self.checkpoints.save(self.step, self._tensors(), facts)

    def resume(self) -> None:
        """Resume from the newest valid checkpoint, if there is one.

        Raises
        ------
        ArtefactError
            If the checkpoint is of another run, or the folder can not be written to.
        """
        if self.checkpoints is None:
            return
        loaded = self.checkpoints.load()
        if loaded is not None:
            self._restore(*loaded)
        if not self.history.complete:
            self.checkpoints.prepare()

    def _restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        before = facts["run"]
        for key in {**self.identity, **before}:
            if before.get(key) != self.identity.get(key):
                raise ArtefactError(
                    f"the run in {self.checkpoints.folder} must be the one that is resumed",  # type: ignore[union-attr]
                    f"its {key} is {before.get(key)!r:.250}, not {self.identity.get(key)!r:.250}",
                    "Use the settings and the data of that run, or another folder.",
                )
        self.checkpoints.check((tensors, facts), self._tensors(), self.steps_per_epoch)  # type: ignore[union-attr]
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(tensors[name])
        self.step = facts["step"]
        self.history.records, self.history.complete = facts["records"], facts["complete"]
        self.started -= facts["seconds"]
        usable = facts["backend"] != "onednn" or onednn_is_exact()
        self.history.products = facts["backend"] if usable else "default"
        begun = facts["circumstances"] | {"products": facts["backend"]}
        now = reproducibility_info(self.device) | {"products": self.history.products}
        differing = [f"{name} {value}, not {now.get(name)}" for name, value in begun.items() if value != now.get(name)]
        if differing and not self.history.complete:
            warn(f"the run was started with {', '.join(differing)}: the last bits of its result may differ", 2)

    def _tensors(self) -> dict[str, Tensor]:
        """The state that changes from step to step."""
        state = {f"optimiser.{name}": t for name, t in self.optimiser.state().items()}
        state |= {f"best.{name}": t for name, t in self.best.items()}
        state |= {f"model.{name}": t for name, t in tensors_of(self.model).items()}
        if self.averaged is not self.model:
            state |= {f"averaged.{name}": t for name, t in tensors_of(self.averaged).items()}
        return state | {f"control.{name}": t for name, t in self.control.state.items()} | {"seen": self.seen}

    def _identify(self) -> dict[str, Any]:
        """The identity of this run: settings, objective, data and the modules of the model."""
        settings = {k: v for k, v in asdict(self.settings).items() if k != "device"}
        data = {"data": checksum(self.rows), "held-out data": checksum(self.held_out)}
        return settings | {"beta": repr(self.beta), "objective": repr(self.objective)} | data | describe(self.model)
