"""A sweep: one dedicated model for each beta, for those who do not want one network for a range.

The model at the middle beta is trained first and the others start from its weights. In a folder every finished model
is saved as `beta-0.1`, one in the making has its checkpoints in `beta-0.1.run`, and `sweep.json` says what the sweep
is: the same call goes on with what a killed one has left, and ends with the same bits.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.parallel import Parallel, delayed
from torch import Tensor

from elbowroom.data import validation
from elbowroom.errors import ArtefactError, ElbowroomWarning, ParameterError, warn
from elbowroom.estimators.base import BaseVAE
from elbowroom.estimators.registry import load
from elbowroom.estimators.sweep_folder import (
    SETTINGS,
    betas_of_sweep,
    check_same,
    held_sweep,
    place_of,
    seed_for,
    settings_in,
    settings_of,
)
from elbowroom.persistence.artefact import is_model
from elbowroom.persistence.estimator import name_features
from elbowroom.tasks.curve import Curve, curve
from elbowroom.tasks.pick import pick
from elbowroom.utils import specs
from elbowroom.utils.files import write_atomically
from elbowroom.utils.matmul import product_backend, same_products
from elbowroom.utils.progress import tell
from elbowroom.utils.randomness import resolve_seed
from elbowroom.utils.signals import ENDING, Interrupt, stopping

LOGGER = logging.getLogger("elbowroom.sweep")
WATCHED = 0.2  # seconds between looks at the process that a worker works for
Trained = tuple[BaseVAE, list[str]]  # a model, and what was worth a look while it was trained


@dataclass(frozen=True, eq=False)
class Sweep:
    """Models by beta, each trained at it alone; the smallest beta first.

    Parameters
    ----------
    models : dict of float to estimator
        Fitted with the same settings on the same rows.
    """

    models: Mapping[float, BaseVAE]

    @property
    def betas(self) -> list[float]:
        """The betas, the smallest first."""
        return sorted(self.models)

    @property
    def first(self) -> BaseVAE:
        """The model at the smallest beta, for what all have in common."""
        return self.models[self.betas[0]]

    def at(self, beta: float) -> BaseVAE:
        """The model that was trained at a beta.

        Raises
        ------
        ParameterError
            If there is none.
        """
        return self.models[self._known([beta])[0]]

    def curve(self, X: Any, betas: Sequence[float] | None = None, *, context: Any = None, n_draws: int = 4) -> Curve:
        """Rate, distortion, ELBO and active units of every model, or those at `betas`, on rows X.

        It is the curve that a model of a range has, in nats per row and with standard errors.
        """
        found = self._known(betas)
        rows, _ = self.first._open(X, context, self.first._scored_in)
        models = {beta: self.models[beta]._model(self.first._scored_in) for beta in found}
        return curve(models, rows, validation.positive("n_draws", n_draws))

    def pick(
        self,
        X: Any,
        task: str | Callable[[BaseVAE, Any], float] = "log_likelihood",
        betas: Sequence[float] | None = None,
        *,
        context: Any = None,
    ) -> float:
        """The beta of the sweep that is best for a task, on rows X; tasks are those of `BaseVAE.pick`.

        For a target between two betas it is the one that is nearer to where the target would be met.
        """
        known = self._known(betas)
        found = pick(self, X, task, known, context)  # a target's is between those of the curve
        return min(known, key=lambda beta: abs(math.log(beta / found)))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """The sweep that a folder holds.

        Raises
        ------
        ArtefactError
            If the folder holds none, or one of which models are missing or broken.
        """
        folder = validation.path_of(folder, "folder")
        settings = settings_in(folder)
        if settings is None:
            raise ArtefactError("a sweep is a folder with a sweep.json", f"{folder} has none", "Check the path.")
        places = {beta: place_of(folder, beta) for beta in settings["betas"]}
        left = [place.name for place in places.values() if not is_model(place)]
        if left:
            do = "Call sweep again with the same settings and data: it goes on."
            raise ArtefactError("a sweep must have a model at every beta", f"{folder} lacks {', '.join(left)}", do)
        return cls({beta: load(place) for beta, place in places.items()})

    def _known(self, betas: Sequence[float] | None) -> list[float]:
        """Betas that are asked for, as the sweep has them; all of them without any."""
        if betas is None:
            return self.betas
        try:
            wanted = np.asarray(betas, float).ravel()
            near = [min(self.betas, key=lambda beta, b=b: abs(beta - b)) for b in wanted]  # type: ignore[misc]
        except (TypeError, ValueError):
            wanted, near = np.array([]), []
        if not near or not np.allclose(near, wanted, rtol=1e-9, atol=0):
            raise ParameterError(
                f"a beta of this sweep must be one of {', '.join(map(specs.value_form, self.betas))}",
                f"{betas!r} was asked for",
                "Choose one of them, or train on a range, beta='0.01..10'.",
            )
        return sorted(set(near))


def sweep(
    estimator: BaseVAE,
    X: Any,
    betas: Sequence[float],
    folder: str | os.PathLike[str] | None = None,
    *,
    context: Any = None,
    jobs: int = 1,
    warm_start: bool = True,
    names: Sequence[str] | None = None,
) -> Sweep:
    """Train one model for each beta on the same rows.

    Parameters
    ----------
    estimator : TableVAE, ImageVAE or CountVAE
        The settings of all models but for beta. It stays as it is. All models have the same seed, hence also the same
        held-out rows.
    X : array-like or data frame
    betas : sequence of float
        Two or more positive numbers, each once.
    folder : path, optional
        Where the models are kept as they are finished. A sweep in it with these settings and data is continued.
    context : array-like (n,), optional
        As in `fit`.
    jobs : int
        Processes that train at the same time. More than one have one thread each.
    warm_start : bool
        Train the model at the (geometrically) middle beta first, and start the others from its weights.
    names : sequence of str, optional
        Of the features, where X does not say them.

    Raises
    ------
    DataError, ParameterError, TrainingError, ArtefactError
        With what was expected, what came and what to do.
    KeyboardInterrupt
        At Ctrl-C. What is finished stays in the folder, and so do checkpoints of what is not. SIGTERM and SIGHUP do
        the same, in the workers too, and then go to their handlers; the system's end the process.
    """
    if not isinstance(estimator, BaseVAE):
        raise ParameterError("a sweep trains an estimator of Elbowroom", f"it is {estimator!r}", "Pass TableVAE().")
    known, jobs = betas_of_sweep(betas), validation.positive("jobs", jobs)
    estimator._check_parameters()
    place = None if folder is None else validation.path_of(folder, "folder")
    if place is None:
        fit = _Fit(_dedicated(estimator, resolve_seed(estimator.random_state)), X, context, names, product_backend())
        return Sweep(_train_all(fit, known, jobs, warm_start))
    with held_sweep(place):
        before = settings_in(place)
        seed = seed_for(estimator, before)
        settings = settings_of(_dedicated(estimator, seed), X, context, known, warm_start)
        if before is None:
            write_atomically(place / SETTINGS, json.dumps(settings, indent=1))
        else:
            check_same(place, before, settings)
        fit = _Fit(_dedicated(estimator, seed), X, context, names, (before or settings)["products"], place.absolute())
        _train_all(fit, known, jobs, warm_start)
        return Sweep.load(place)


def middle(betas: Sequence[float]) -> float:
    """The beta that is nearest to the geometric middle of the ends; the smaller of two.

    >>> middle([0.01, 0.1, 1, 10, 100])
    1
    """
    centre = math.log(min(betas)) / 2 + math.log(max(betas)) / 2
    return min(sorted(betas), key=lambda beta: round(abs(math.log(beta) - centre), 9))


# ---- training ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fit:
    """How one model of a sweep is trained, in this process or in another."""

    estimator: BaseVAE
    X: Any
    context: Any
    names: Sequence[str] | None
    products: str
    folder: Path | None = None
    shown: bool = True

    def __call__(self, beta: float, start: Mapping[str, Tensor] | None) -> BaseVAE:
        """The model at a beta: trained, or as an earlier call has saved it."""
        place = None if self.folder is None else place_of(self.folder, beta)
        run = None if place is None else place.with_name(f"{place.name}.run")
        if place is None or not is_model(place):
            model = self._fitted(beta, start, run)
            if place is None:
                return model
            try:
                model.save(place)
            except ArtefactError as error:
                do = f"{error.do} The same call goes on; what was trained is kept in {self.folder}."
                raise ArtefactError(error.expected, error.got, do) from error
        shutil.rmtree(run, ignore_errors=True)  # type: ignore[arg-type]
        return load(place)

    def _fitted(self, beta: float, start: Mapping[str, Tensor] | None, run: Path | None) -> BaseVAE:
        model = clone(self.estimator).set_params(beta=beta)
        model.verbose = bool(model.verbose and self.shown)
        tell(LOGGER, f"beta {specs.value_form(beta)}", model.verbose)
        vars(model)["_start"] = start
        with same_products(self.products), Interrupt(whole=True) as interrupt:
            model.fit(self.X, context=self.context, checkpoint=run)
        del vars(model)["_start"]
        model.verbose = self.estimator.verbose
        if interrupt.came or not model.history_.complete:
            raise KeyboardInterrupt
        name_features(model, self.names)
        return model


def _dedicated(estimator: BaseVAE, seed: int) -> BaseVAE:
    """The estimator that all models of a sweep are copies of."""
    return clone(estimator).set_params(beta=1.0, random_state=seed)


def _train_all(fit: _Fit, betas: Sequence[float], jobs: int, warm_start: bool) -> dict[float, BaseVAE]:
    """Train the models: that at the middle beta first if the others start from it."""
    found: dict[float, BaseVAE] = {}
    start = None
    if warm_start:
        first = middle(betas)
        found |= _train_some(fit, [first], jobs, None)
        start = {name: tensor.clone() for name, tensor in found[first].model_.state_dict().items()}
    found |= _train_some(fit, [beta for beta in betas if beta not in found], jobs, start)
    return {beta: found[beta] for beta in betas}


def _train_some(
    fit: _Fit, betas: Sequence[float], jobs: int, start: Mapping[str, Tensor] | None
) -> dict[float, BaseVAE]:
    if jobs == 1:
        return {beta: _say(beta, *_trained(fit, beta, start)) for beta in betas}
    with Interrupt() as interrupt, tempfile.TemporaryDirectory() as scratch:
        stop = Path(scratch) / "stop"  # which the workers look for, and then end what they do as at a signal
        interrupt.act = stop.touch
        worker = partial(_trained_alone, os.getpid(), stop, replace(fit, shown=False))
        try:
            workers = Parallel(n_jobs=min(jobs, len(betas)), initializer=_begin, initargs=(os.getpid(),))
            found = workers(delayed(worker)(beta, start) for beta in betas)
        except BaseException:
            if not interrupt.came:  # else it is that a worker has ended
                raise
    if interrupt.came or None in found:
        raise KeyboardInterrupt
    return {beta: _say(beta, *each) for beta, each in zip(betas, found, strict=True)}


def _trained(fit: _Fit, beta: float, start: Mapping[str, Tensor] | None) -> Trained:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ElbowroomWarning)
        model = fit(beta, start)
    return model, list(dict.fromkeys(str(warning.message) for warning in caught))


def _trained_alone(
    owner: int, stop: Path, fit: _Fit, beta: float, start: Mapping[str, Tensor] | None
) -> Trained | None:
    """The same with one thread, in this process or in another; None where it was stopped."""
    if stop.exists():
        return None
    apart, done, threads = os.getpid() != owner, threading.Event(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with stopping() if apart else nullcontext():
            if apart:
                threading.Thread(target=_watch, args=(stop, done), daemon=True).start()
            found = _trained(fit, beta, start)
            done.set()
    except KeyboardInterrupt:
        return None
    finally:
        done.set()
        torch.set_num_threads(threads)
    tell(LOGGER, f"beta {specs.value_form(beta)} is trained", bool(fit.estimator.verbose))
    return found


def _begin(owner: int) -> None:
    """Make this process, which waits for work, one that ends when that of its owner has ended."""
    for number in (signal.SIGINT, *ENDING):  # one that waits for work must not end: all others would be killed
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()


def _end_with(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(WATCHED)
    os._exit(1)


def _watch(stop: Path, done: threading.Event) -> None:
    """End what this process does when it is to stop."""
    while not done.is_set():
        if stop.exists():
            done.set()
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(WATCHED)


def _say(beta: float, model: BaseVAE, notes: Sequence[str]) -> BaseVAE:
    for note in notes:
        warn(f"beta {specs.value_form(beta)}: {note}", 5)
    return model
