"""The base class of estimators: scikit-learn's contract around one model."""

from __future__ import annotations

import copy
import logging
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from elbowroom.beta.policies import Beta, Capacity, LogUniform, beta_of
from elbowroom.data import validation
from elbowroom.data.dataset import Rows, evenly, rows_of
from elbowroom.data.io.writers import check_file_place
from elbowroom.errors import DataError, warn
from elbowroom.estimators.reporting import summarise
from elbowroom.latents.posteriors import LATENTS
from elbowroom.likelihoods.auto import Choice, Facts, check_rows, choose_likelihood
from elbowroom.models.build import build
from elbowroom.models.vae import VAE, in_double
from elbowroom.nn.custom import custom_network
from elbowroom.nn.layers import ACTIVATIONS, check_widths
from elbowroom.nn.mlp import MLP
from elbowroom.objectives.bounds import Objective, objective_of
from elbowroom.persistence import artefact
from elbowroom.persistence.estimator import artefact_of
from elbowroom.tasks import diagnose, generate, score
from elbowroom.tasks.curve import Curve, betas_of, curve
from elbowroom.tasks.diagnose import Diagnosis
from elbowroom.tasks.pick import pick
from elbowroom.tasks.score import LogLikelihood
from elbowroom.training.checkpoints import Checkpoints
from elbowroom.training.plan import diagnosis_sample_size, epochs_for, split
from elbowroom.training.trainer import Trainer
from elbowroom.utils.constraints import HasMethods, Interval, StrOptions
from elbowroom.utils.devices import PRECISIONS
from elbowroom.utils.progress import Progress, takes, tell
from elbowroom.utils.randomness import generator_at, own_stream, resolve_seed, seed_of
from elbowroom.utils.settings import standard_defaults
from elbowroom.utils.signals import Interrupt

LOGGER = logging.getLogger("elbowroom.estimators")


@dataclass(eq=False, repr=False, match_args=False)
class BaseVAE(TransformerMixin, BaseEstimator, ABC):
    """Base of the estimators: fit, encode, decode, score, sample, save."""

    # The fields are the constructor's parameters, kept as they are given.
    n_latents: int = 8
    _: KW_ONLY
    beta: float | str | Beta = 1.0
    likelihood: str | Mapping[str, Sequence[Any]] | nn.Module = "auto"
    prior: Any = "standard"
    covariance: str = "diagonal"
    hidden: Sequence[int] = (256, 256)
    activation: str = "silu"
    gated: bool = False
    encoder: nn.Module | None = None
    decoder: nn.Module | None = None
    objective: str | Objective = "elbo"
    epochs: int | str = "auto"
    batch_size: int = 128
    learning_rate: float = 3e-3
    validation_fraction: float = 0.1
    patience: int | None = None
    average: bool = True
    device: str = "auto"
    precision: str = "float32"
    random_state: Any = None
    verbose: bool = False

    _scored_in: ClassVar[torch.dtype] = torch.float64  # float32 log-probabilities of large counts are off by nats
    _start: ClassVar[Mapping[str, Tensor] | None] = None  # initial weights, from another model of a sweep

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_latents": [Interval(Integral, 1, validation.MOST, closed="both")],
        "beta": [Interval(Real, 0, None, closed="left"), str, Beta],
        "likelihood": [str, dict, nn.Module],
        "prior": [str, HasMethods(["build"])],
        "covariance": [StrOptions(set(LATENTS))],
        "hidden": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "gated": ["boolean"],
        "encoder": [nn.Module, None],
        "decoder": [nn.Module, None],
        "objective": [str, callable],
        "epochs": [Interval(Integral, 1, validation.MOST, closed="both"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, validation.MOST, closed="both")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "patience": [Interval(Integral, 1, validation.MOST, closed="both"), None],
        "average": ["boolean"],
        "device": [str],
        "precision": [StrOptions(set(PRECISIONS))],
        "random_state": ["random_state", np.random.Generator],
        "verbose": ["verbose"],
    }

    # ---- what a kind of data decides -------------------------------------------------------------------------------

    @abstractmethod
    def _read(self, X: Any, reset: bool) -> Any:
        """Check X and flatten it to an array or sparse matrix (n, D)."""

    @abstractmethod
    def _choose(self, facts: Facts) -> Choice:
        """likelihood="auto" for this kind of data."""

    def _choose_likelihood(self, rows: Rows) -> tuple[nn.Module, Any, str]:
        """The likelihood for rows, its complete text form, and why it was chosen."""
        return choose_likelihood(self.likelihood, rows, self._choose, self._names)

    def _write(self, values: Tensor, like: Any = None) -> Any:
        """Rows (n, D) in the caller's shape: a frame if `like`, the X they belong to, or X in fit was one."""
        kind = self.frame_kind_ if like is None else validation.frame_kind(like)
        if kind is None:
            return values.numpy()
        return validation.to_frame(values.numpy(), self._names, kind, like)

    def _encoder(self, inputs: int, context: int, code: int) -> nn.Module:
        """The encoder, from the width of its input to its own."""
        hidden = check_widths("hidden", self.hidden)
        return MLP(inputs, hidden, None, self.activation, bool(self.gated), context, code, skip_beta=0)

    def _decoder(self, outputs: int, context: int, code: int) -> nn.Module:
        """The decoder, from latents to the likelihood's parameters."""
        hidden = check_widths("hidden", self.hidden)[::-1]
        return MLP(self.n_latents, hidden, outputs, self.activation, bool(self.gated), context, code, skip_beta=-1)

    def _bodies(self, inputs: int, outputs: int, context: int, code: int) -> tuple[nn.Module, nn.Module]:
        """Encoder and decoder: user-supplied, or those for the data."""
        return (
            self._encoder(inputs, context, code)
            if self.encoder is None
            else custom_network("encoder", self.encoder, inputs, None, context),
            self._decoder(outputs, context, code)
            if self.decoder is None
            else custom_network("decoder", self.decoder, self.n_latents, outputs, context),
        )

    def _rows(self, x: Any, context: np.ndarray | None) -> Rows:
        """The model's rows for x, an array or sparse matrix (n, D)."""
        return rows_of(x, context)

    # ---- fit -------------------------------------------------------------------------------------------------------

    @standard_defaults()
    def fit(
        self, X: Any, y: Any = None, *, context: Any = None, checkpoint: str | os.PathLike[str] | None = None
    ) -> Self:
        """Train on rows X.

        Parameters
        ----------
        X : array-like or data frame
            The data; see the class for its shape.
        y : ignored
        context : array-like (n,), optional
            A label for each row (a batch, a class) on which the model is conditioned. All other methods then need it
            too; a single label applies to all rows.
        checkpoint : path, optional
            A folder for checkpoints. If it holds a run with these settings and data, that run is resumed, with the
            same result, bit by bit, as without the interruption.

        Returns
        -------
        self

        Raises
        ------
        DataError, ParameterError, TrainingError
            If the data or a parameter is invalid, or the training diverges.

        Notes
        -----
        Ctrl-C ends training after the current step and keeps the best model so far; in the first epoch it is raised.
        SIGTERM and SIGHUP do the same, write a checkpoint, and are then passed on to their handlers; the system's
        default ends the process. (In the main thread; ignored signals stay ignored.)
        """
        self._check_parameters()
        checkpoints = None if checkpoint is None else Checkpoints(checkpoint)
        self.beta_, objective = beta_of(self.beta), objective_of(self.objective)
        self.__dict__.pop("model_", None)  # a failed fit must not leave a model of other data
        X, context = self._unpack(X, context)
        x = self._read(X, reset=True)
        self.frame_kind_ = validation.frame_kind(X)
        codes = self._encode_context(context, x.shape[0], reset=True)
        known = checkpoints.seed() if checkpoints is not None and self.random_state is None else None
        self.seed_ = resolve_seed(self.random_state) if known is None else known  # a resumed run keeps its seed
        rows = self._rows(x, codes)
        likelihood, self.likelihood_, self.likelihood_reason_ = self._choose_likelihood(rows)
        if self.verbose or takes(LOGGER):
            for line in self._choices:
                tell(LOGGER, line, self.verbose)
        span = self.beta_ if isinstance(self.beta_, LogUniform) else None
        train, held_out = split(rows, self.validation_fraction, self.seed_)
        model = build(likelihood, self._bodies, self.n_latents, self.covariance, self._prior, train, self.seed_, span)
        self._begin(model, train)
        self.epochs_ = epochs_for(len(train), self.batch_size) if self.epochs == "auto" else int(self.epochs)
        progress = Progress(self.epochs_, silent=not self.verbose)
        custom = any(isinstance(part, nn.Module) for part in (self.encoder, self.decoder, self.likelihood))
        with Interrupt() as interrupt:  # a trained model must not be left without its other attributes
            # "guests" names a stream of random numbers: another word would change the bits
            with own_stream(seed_of(self.seed_, "guests")) if custom else nullcontext():
                history = self._trainer().fit(model, train, self.beta_, objective, held_out, checkpoints, progress)
            interrupt.end()
            some = train.take(evenly(len(train), diagnosis_sample_size(train.features)))
            self.history_, self.model_ = history, model.eval()
            new_to_prior = generate.settle_prior(model, some, self.seed_)
            done = history if self._start is None else None  # else there were steps before these
            self.diagnosis_ = diagnose.diagnose(model, new_to_prior, self._beta_now, done)
            self.history_.verdict = self.diagnosis_.verdict
        return self

    @property
    def _choices(self) -> list[str]:
        """What the data was taken for, in lines."""
        return [f"likelihood {self.likelihood_}: {self.likelihood_reason_}"]

    def _begin(self, model: VAE, rows: Rows) -> None:
        """Initialise the weights of a new model, if they are not the random ones."""
        if self._start is not None:
            model.load_state_dict(self._start)

    @property
    def _prior(self) -> Any:
        """The prior: its text form, or an object that builds it."""
        return self.prior

    def _trainer(self) -> Trainer:
        return Trainer(
            self.epochs_,
            int(self.batch_size),
            float(self.learning_rate),
            average=bool(self.average),
            patience=None if self.patience is None else int(self.patience),
            seed=self.seed_,
            device=self.device,
            precision=self.precision,
        )

    def _check_parameters(self) -> None:
        validation.check_parameters(self)

    @property
    def _beta_now(self) -> float:
        """The beta of the model: its default in a range, else that at the end of training.

        It is NaN with a capacity: the weight of the rate then changed its sign during training.
        """
        conditioning = self.model_.conditioning
        if isinstance(self.beta_, Capacity):
            return math.nan
        return self.history_.final_beta if conditioning is None else conditioning.beta

    @property
    def _names(self) -> list[str] | None:
        found = getattr(self, "feature_names_in_", getattr(self, "var_names_", None))
        return None if found is None else list(found)

    @property
    def _cells(self) -> list[str] | None:
        """The names of the columns of the model's rows in errors."""
        return self._names

    # ---- context ---------------------------------------------------------------------------------------------------

    def _unpack(self, X: Any, context: Any) -> tuple[Any, Any]:
        """X and context from one object that holds both."""
        return X, context

    def _encode_context(self, context: Any, n: int, reset: bool) -> np.ndarray | None:
        if reset:
            self.context_categories_ = None
        elif (context is None) != (self.context_categories_ is None):
            raise _context_error(self.context_categories_)
        if context is None:
            return None
        codes, categories = validation.one_hot(context, n, self.context_categories_)
        if reset:
            self.context_categories_ = categories
        return codes

    # ---- a range of beta -------------------------------------------------------------------------------------------

    def at(self, beta: float) -> Self:
        """The model at one beta of the range that it was fitted with: a fitted estimator, which shares the weights.

        Raises
        ------
        ParameterError
            If the model was fitted with one beta, or beta is outside of its range.
        """
        check_is_fitted(self)
        other = copy.copy(self)
        other.model_ = self.model_.at(beta)
        return other

    def curve(self, X: Any, betas: Sequence[float] | None = None, *, context: Any = None, n_draws: int = 4) -> Curve:
        """Rate, distortion, ELBO and active units at betas of the range, in nats per row of X, with standard errors.

        By default, there are 13 betas, evenly spaced in their logarithm.
        """
        rows, model = self._open(X, context, self._scored_in)
        found = betas_of(model, betas)
        return curve({beta: model.at(beta) for beta in found}, rows, validation.positive("n_draws", n_draws))

    def pick(
        self,
        X: Any,
        task: str | Callable[[Self, Any], float] = "log_likelihood",
        betas: Sequence[float] | None = None,
        *,
        context: Any = None,
    ) -> float:
        """The beta of the range that is best for a task, on rows X, which should be neither training nor test rows.

        Parameters
        ----------
        task : str or callable
            "log_likelihood" or "elbo" for the highest one; "rate:nats=12" or "distortion:nats=80" for the beta that
            has it; "knee" for the beta at the knee of the curve; or `task(model, X)`, which scores the model at a
            beta, higher is better.
        betas : sequence of float, optional
            The betas to choose among; by default 13, evenly spaced in their logarithm.
        """
        check_is_fitted(self)
        return pick(self, X, task, betas_of(self.model_, betas), context)

    # ---- tasks -----------------------------------------------------------------------------------------------------

    def fit_transform(self, X: Any, y: Any = None, *, context: Any = None) -> np.ndarray:
        """Fit on X and return its posterior means."""
        given = {} if context is None else {"context": context}  # which not all estimators take
        return self.fit(X, **given).transform(X, **given)

    def transform(self, X: Any, *, context: Any = None) -> np.ndarray:
        """Posterior means E q(z|x), (n, n_latents), in the floating dtype of X."""
        rows, model = self._open(X, context)
        z = generate.posterior_mean(model, rows).numpy()
        score.warn_non_finite(z, "latents")
        return z

    @standard_defaults()
    def inverse_transform(self, Z: Any, *, context: Any = None) -> Any:
        """Means E[x|z] of latents (n, n_latents), in the shape of the data."""
        check_is_fitted(self)
        Z = _latents(Z)
        if Z.ndim != 2 or Z.shape[1] != self.model_.n_latents or not len(Z) or Z.dtype.kind not in "iuf":
            raise DataError(
                f"Z must be an array of latents (n, {self.model_.n_latents}), of at least one row",
                f"its shape is {Z.shape} and its dtype {Z.dtype}",
                "Pass what transform returns.",
            )
        validation.refuse_non_finite(Z, None, "Pass what transform returns.")
        dtype = self._dtype(Z)
        codes = self._encode_context(context, len(Z), reset=False)
        means = generate.decode_mean(self._model(dtype), torch.as_tensor(Z, dtype=dtype), _tensor(codes, dtype))
        return self._write(means)

    def reconstruct(self, X: Any, *, context: Any = None) -> Any:
        """E[x|z] at the posterior mean of every row, in the shape of X."""
        rows, model = self._open(X, context)
        means = generate.reconstruct(model, rows)
        score.warn_non_finite(means.numpy(), "reconstruction")
        return self._write(means, self._unpack(X, context)[0])

    def sample(self, n_samples: int = 1, *, mean: bool = False, context: Any = None, random_state: Any = None) -> Any:
        """New rows: z from the prior, then x from p(x|z), or its mean with `mean=True`; in the shape of the data."""
        check_is_fitted(self)
        n, mean = validation.positive("n_samples", n_samples), validation.flag("mean", mean)
        codes = self._encode_context(context, n, reset=False)
        generator = generator_at(resolve_seed(random_state), "sample")
        return self._write(generate.sample(self.model_, n, generator, mean, _tensor(codes, torch.float32)))

    def sample_posterior(
        self, X: Any, n_samples: int = 1, *, context: Any = None, random_state: Any = None
    ) -> np.ndarray:
        """Draws of z from q(z|x), (n_samples, n, n_latents)."""
        n = validation.positive("n_samples", n_samples)
        rows, model = self._open(X, context)
        generator = generator_at(resolve_seed(random_state), "posterior")
        z = generate.sample_posterior(model, rows, n, generator).numpy()
        score.warn_non_finite(z.swapaxes(0, 1), "latents")
        return z

    def score_samples(self, X: Any, *, context: Any = None, n_draws: int = 16) -> np.ndarray:
        """Evidence lower bound at beta = 1 of every row (n,), in nats, whatever beta the model was trained with.

        Deterministic: the expectation over z is a mean over `n_draws` draws whose noise depends on the row only. So
        equal rows have equal scores and equal errors; for means over data with repeated rows, use `score`.
        """
        distortion, rate = self.distortion_and_rate(X, context=context, n_draws=n_draws)
        return -(distortion + rate)

    def distortion_and_rate(self, X: Any, *, context: Any = None, n_draws: int = 16) -> tuple[np.ndarray, np.ndarray]:
        """Distortion -E log p(x|z) and rate KL(q || p) of every row, two arrays (n,), in nats."""
        return self._distortion_and_rate(X, context, n_draws)

    def _distortion_and_rate(
        self, X: Any, context: Any = None, n_draws: int = 16, apart: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same; with `apart`, equal rows have independent errors, for means over rows."""
        n = validation.positive("n_draws", n_draws)
        rows, model = self._open(X, context, self._scored_in)
        distortion, rate = score.distortion_and_rate(model, rows, n, apart)
        score.warn_non_finite(distortion + rate, "score", 4)
        return distortion, rate

    def score(self, X: Any, y: Any = None, *, context: Any = None) -> float:
        """Mean evidence lower bound at beta = 1, in nats per row: larger is better, and comparable across betas."""
        distortion, rate = self._distortion_and_rate(X, context, apart=True)
        return -float((distortion + rate).mean())

    def log_likelihood(
        self, X: Any, *, context: Any = None, n_draws: int = 1000, random_state: Any = 0
    ) -> LogLikelihood:
        """Importance-weighted log p(x), in nats per row, with its standard error and effective sample size.

        See `elbowroom.tasks.score.LogLikelihood` (Burda et al. 2016). If the effective sample sizes are so small that
        it is only a lower bound, there is an `ElbowroomWarning` and its `caution` gives the reason.
        """
        found = self._log_likelihood(X, context=context, n_draws=n_draws, random_state=random_state)
        if found.caution:
            warn(found.caution, 2)
        return found

    def _log_likelihood(
        self, X: Any, *, context: Any = None, n_draws: int = 1000, random_state: Any = 0
    ) -> LogLikelihood:
        """The same without the warning, for callers that report its caution themselves."""
        n, seed = validation.positive("n_draws", n_draws), resolve_seed(random_state)
        rows, model = self._open(X, context, self._scored_in)
        found = score.log_likelihood(model, rows, n, seed)
        score.warn_non_finite(found.rows, "log-likelihood", 4)
        return found

    def diagnose(self, X: Any, *, context: Any = None) -> Diagnosis:
        """Active units, rate per latent, mutual information, aggregate KL and a verdict in words, over rows X."""
        rows, model = self._open(X, context, self._scored_in)
        found = diagnose.diagnose(model, rows, self._beta_now)
        return replace(found, steps=self.diagnosis_.steps, falls=self.diagnosis_.falls)

    def report(
        self,
        X: Any,
        path: str | os.PathLike[str] = "report.html",
        *,
        labels: Any = None,
        label_name: str = "label",
        context: Any = None,
    ) -> Path:
        """Write one self-contained HTML page about the model on rows X; labels (n,) colour the latent map."""
        check_is_fitted(self)
        place = validation.path_of(path, "path")
        check_file_place(place)
        summarise(self, X, labels, label_name, context).write(place)
        return place

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fitted model as a folder of data (JSON, safetensors, a card); `elbowroom.load` reads it.

        An existing model is replaced atomically.

        Raises
        ------
        ArtefactError
            If it can not be written, or could not be loaded again. An existing saved model is then unchanged.
        """
        check_is_fitted(self)
        return artefact.write(artefact_of(self), validation.path_of(path, "path"))

    # ---- scikit-learn ----------------------------------------------------------------------------------------------

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the latents: latent0, latent1, ..."""
        check_is_fitted(self)
        if input_features is not None:
            validation.check_names(self, input_features)
        return np.asarray([f"latent{i}" for i in range(self.model_.n_latents)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    @standard_defaults()
    def _open(self, X: Any, context: Any, dtype: torch.dtype | None = None) -> tuple[Rows, Any]:
        """The validated rows of X, and the model in their precision, or in the requested one."""
        check_is_fitted(self)
        X, context = self._unpack(X, context)
        x = self._read(X, reset=False)
        codes = self._encode_context(context, x.shape[0], reset=False)
        rows = self._rows(x, codes)
        check_rows(self.model_.likelihood, rows, self._cells)
        dtype = dtype or self._dtype(x)
        rows.context = _tensor(codes, dtype)
        return rows, self._model(dtype)

    def _dtype(self, values: Any) -> torch.dtype:
        """The precision of results: that of the values, and float64 for whole numbers."""
        return torch.float32 if values.dtype == np.float32 else torch.float64

    def _model(self, dtype: torch.dtype) -> Any:
        """The model, or a float64 copy: in float32 a row's result is not batch-invariant in the last bits."""
        return self.model_ if dtype == torch.float32 else in_double(self.model_)


def _context_error(known: np.ndarray | None) -> DataError:
    expected = "context must be given if, and only if, the model was fitted with it"
    if known is None:
        return DataError(expected, "it was fitted without context", "Leave context out.")
    first = ", ".join(map(repr, known[:8].tolist())) + (", ..." if len(known) > 8 else "")
    do = f"Pass context=..., one label for each row or one for all, of {first}."
    return DataError(expected, "it was fitted with context", do)


def _latents(Z: Any) -> np.ndarray:
    """Z as an array; anything else becomes an empty array."""
    try:
        return np.asarray(validation.as_array(Z))
    except DataError:
        raise
    except Exception:  # whatever the Z of another library does when it is read
        return np.empty((), dtype=object)


def _tensor(codes: np.ndarray | None, dtype: torch.dtype) -> Tensor | None:
    return None if codes is None else torch.from_numpy(codes).to(dtype)
