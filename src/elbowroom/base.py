"""What all estimators share: scikit-learn's contract around one model."""

from __future__ import annotations

import copy
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import HasMethods, Interval, InvalidParameterError, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from elbowroom.beta import Beta, beta_of
from elbowroom.bodies import ACTIVATIONS, MLP, check_widths
from elbowroom.build import build, choose_likelihood
from elbowroom.checkpoints import Checkpoints
from elbowroom.data import door
from elbowroom.data.choose import Choice, Facts
from elbowroom.data.rows import Rows, evenly, rows_of
from elbowroom.devices import PRECISIONS
from elbowroom.errors import DataError, ElbowroomWarning, ParameterError
from elbowroom.latents import LATENTS
from elbowroom.objectives import Elbo, Iwae, Objective, objective_of
from elbowroom.progress import Progress
from elbowroom.randomness import generator_at, resolve_seed
from elbowroom.tasks import diagnose, generate, score
from elbowroom.trainer import Trainer

STEPS = 4000  # what epochs="auto" aims at, within MIN_EPOCHS and MAX_EPOCHS
MIN_EPOCHS, MAX_EPOCHS = 10, 400
DIAGNOSED = 10_000  # training rows that the diagnosis looks at


class InvalidParameter(ParameterError, InvalidParameterError):
    """A constructor parameter that scikit-learn's constraints refuse."""

    def __str__(self) -> str:
        return f"{self.expected}. {self.got}. {self.do}"


class BaseVAE(TransformerMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Base of the estimators: fit, encode, decode, score, sample, save."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_latents": [Interval(Integral, 1, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="left"), str, Beta],
        "likelihood": [str, dict, nn.Module],
        "prior": [str],
        "covariance": [StrOptions(set(LATENTS))],
        "hidden": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "gated": ["boolean"],
        "encoder": [HasMethods(["forward"]), None],
        "decoder": [HasMethods(["forward"]), None],
        "objective": [str, Elbo, Iwae],
        "epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left"), None],
        "average": ["boolean"],
        "device": [str],
        "precision": [StrOptions(set(PRECISIONS))],
        "random_state": ["random_state", np.random.Generator],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_latents: int = 8,
        *,
        beta: float | str | Beta = 1.0,
        likelihood: str | Mapping[str, Sequence[Any]] | nn.Module = "auto",
        prior: str = "standard",
        covariance: str = "diagonal",
        hidden: Sequence[int] = (256, 256),
        activation: str = "silu",
        gated: bool = False,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        objective: str | Objective = "elbo",
        epochs: int | str = "auto",
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        validation_fraction: float = 0.1,
        patience: int | None = None,
        average: bool = True,
        device: str = "auto",
        precision: str = "float32",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_latents = n_latents
        self.beta = beta
        self.likelihood = likelihood
        self.prior = prior
        self.covariance = covariance
        self.hidden = hidden
        self.activation = activation
        self.gated = gated
        self.encoder = encoder
        self.decoder = decoder
        self.objective = objective
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.average = average
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    # ---- what a kind of data decides -------------------------------------------------------------------------------

    @abstractmethod
    def _read(self, X: Any, reset: bool) -> Any:
        """Check X and flatten it to an array or sparse matrix (n, D)."""

    @abstractmethod
    def _choose(self, facts: Facts) -> Choice:
        """likelihood="auto" for this kind of data."""

    def _write(self, values: Tensor, like: Any = None) -> Any:
        """Rows (n, D) in the caller's shape; `like` is the X they belong to, if any."""
        return values.numpy()

    def _bodies(self, context: int) -> Callable[[int, int], tuple[nn.Module, nn.Module]]:
        """Encoder and decoder, from what the encoder sees and what the likelihood wants."""
        hidden = check_widths("hidden", self.hidden)
        options = {"activation": self.activation, "gated": bool(self.gated), "context": context}

        def make(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
            encoder = self.encoder if self.encoder is not None else MLP(inputs, hidden, None, **options)
            decoder = (
                self.decoder if self.decoder is not None else MLP(self.n_latents, hidden[::-1], outputs, **options)
            )
            return copy.deepcopy(encoder), copy.deepcopy(decoder)

        return make

    def _rows(self, x: Any, context: np.ndarray | None) -> Rows:
        """The rows that are trained on."""
        return rows_of(x, context)

    def _scored_rows(self, x: Any, context: np.ndarray | None) -> Rows:
        """The rows that are scored."""
        return rows_of(x, context)

    # ---- fit -------------------------------------------------------------------------------------------------------

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
            A label of every row (a batch, a class) that the model is told instead of having to encode it.
        checkpoint : path, optional
            A folder for checkpoints. If it holds a run with these settings and data, that run is continued, and ends
            with the same bits as if it had never stopped.

        Returns
        -------
        self

        Raises
        ------
        DataError, ParameterError, TrainingError
            With what was expected, what came and what to do.
        """
        self._check_parameters()
        X, context = self._unpack(X, context)
        x = self._read(X, reset=True)
        codes = self._encode_context(context, x.shape[0], reset=True)
        self.seed_ = resolve_seed(self.random_state)
        rows = self._rows(x, codes)
        likelihood, self.likelihood_, self.likelihood_reason_ = choose_likelihood(
            self.likelihood, rows, self._choose, getattr(self, "feature_names_in_", None)
        )
        if self.verbose or self.likelihood_reason_.endswith("is for counts"):
            self._say(f"likelihood {self.likelihood_}: {self.likelihood_reason_}")
        width = 0 if codes is None else codes.shape[1]
        model = build(likelihood, self._bodies(width), self.n_latents, self.covariance, self.prior, rows, self.seed_)
        train, held_out = self._split(rows)
        self._train(model, train, held_out, checkpoint)
        self.diagnosis_ = diagnose.diagnose(model, train.take(evenly(len(train), DIAGNOSED)), self.beta_.final)
        self.history_.verdict = self.diagnosis_.verdict
        return self

    def _train(self, model: Any, train: Rows, held_out: Rows | None, checkpoint: str | os.PathLike[str] | None) -> None:
        self.beta_ = beta_of(self.beta)
        self.epochs_ = self._resolve_epochs(len(train))
        trainer = Trainer(
            self.epochs_,
            int(self.batch_size),
            float(self.learning_rate),
            average=bool(self.average),
            patience=self.patience,
            seed=self.seed_,
            device=self.device,
            precision=self.precision,
        )
        self.history_ = trainer.fit(
            model,
            train,
            self.beta_,
            objective_of(self.objective),
            held_out,
            None if checkpoint is None else Checkpoints(checkpoint),
            Progress(self.epochs_, silent=not self.verbose),
        )
        self.model_ = model.eval()

    def _check_parameters(self) -> None:
        try:
            self._validate_params()
        except InvalidParameterError as error:
            expected, _, got = str(error).partition(" Got ")
            raise InvalidParameter(
                expected.rstrip("."), f"Got {got.rstrip('.')}", f"See help({type(self).__name__})."
            ) from None

    def _resolve_epochs(self, n: int) -> int:
        if self.epochs != "auto":
            return int(self.epochs)
        return min(MAX_EPOCHS, max(MIN_EPOCHS, math.ceil(STEPS / math.ceil(n / self.batch_size))))

    def _split(self, rows: Rows) -> tuple[Rows, Rows | None]:
        """Training rows, and held-out rows where there are enough to have any."""
        held = int(len(rows) * self.validation_fraction)
        if held < 1 or len(rows) < 20:
            return rows, None
        order = torch.randperm(len(rows), generator=generator_at(self.seed_, "split"))
        return rows.take(order[held:].sort().values), rows.take(order[:held].sort().values)

    def _say(self, message: str) -> None:
        if self.verbose:
            Progress(0).say(message)
        else:
            warnings.warn(message, ElbowroomWarning, stacklevel=3)

    # ---- context ---------------------------------------------------------------------------------------------------

    def _unpack(self, X: Any, context: Any) -> tuple[Any, Any]:
        """X and context from one object that holds both."""
        return X, context

    def _encode_context(self, context: Any, n: int, reset: bool) -> np.ndarray | None:
        if reset:
            self.context_categories_ = None
        elif (context is None) != (self.context_categories_ is None):
            fitted = "with" if context is None else "without"
            raise DataError(
                "context must be given if, and only if, the model was fitted with it",
                f"it was fitted {fitted} context",
                "Pass context=..., one label a row." if context is None else "Leave context out.",
            )
        if context is None:
            return None
        codes, self_categories = door.one_hot(context, n, self.context_categories_)
        if reset:
            self.context_categories_ = self_categories
        return codes

    # ---- tasks -----------------------------------------------------------------------------------------------------

    def transform(self, X: Any, *, context: Any = None) -> np.ndarray:
        """Posterior means E q(z|x), (n, n_latents), in the floating dtype of X."""
        rows, model = self._open(X, context)
        return generate.posterior_mean(model, rows).numpy()

    def inverse_transform(self, Z: Any, *, context: Any = None) -> Any:
        """Means E[x|z] of latents (n, n_latents), in the shape of the data."""
        check_is_fitted(self)
        Z = np.asarray(Z)
        if Z.ndim != 2 or Z.shape[1] != self.n_latents or Z.dtype.kind not in "iuf":
            raise DataError(
                f"Z must be an array of latents (n, {self.n_latents})",
                f"its shape is {Z.shape} and its dtype {Z.dtype}",
                "Pass what transform returns.",
            )
        door.refuse_non_finite(Z, None)
        dtype = torch.float32 if Z.dtype == np.float32 else torch.float64
        codes = None if context is None else self._encode_context(context, len(Z), reset=False)
        means = generate.decode_mean(self._model(dtype), torch.as_tensor(Z, dtype=dtype), _tensor(codes, dtype))
        return self._write(means)

    def reconstruct(self, X: Any, *, context: Any = None) -> Any:
        """E[x|z] at the posterior mean of every row, in the shape of X."""
        rows, model = self._open(X, context)
        return self._write(generate.reconstruct(model, rows), self._unpack(X, context)[0])

    def sample(self, n_samples: int = 1, *, mean: bool = False, context: Any = None, random_state: Any = None) -> Any:
        """New rows: z from the prior, then x from p(x|z), or its mean with `mean=True`; in the shape of the data."""
        check_is_fitted(self)
        if isinstance(n_samples, bool) or not isinstance(n_samples, Integral) or n_samples < 1:
            raise ParameterError("n_samples must be a whole number, at least 1", f"it is {n_samples!r}", "Write 100.")
        codes = None if context is None else self._encode_context(context, int(n_samples), reset=False)
        generator = generator_at(resolve_seed(random_state), "sample")
        return self._write(generate.sample(self.model_, int(n_samples), generator, mean, _tensor(codes, torch.float32)))

    def sample_posterior(
        self, X: Any, n_samples: int = 1, *, context: Any = None, random_state: Any = None
    ) -> np.ndarray:
        """Draws of z from q(z|x), (n_samples, n, n_latents)."""
        rows, model = self._open(X, context)
        generator = generator_at(resolve_seed(random_state), "posterior")
        return generate.sample_posterior(model, rows, int(n_samples), generator).numpy()

    def score_samples(self, X: Any, *, context: Any = None, n_draws: int = 16) -> np.ndarray:
        """Evidence lower bound at beta = 1 of every row (n,), in nats, whatever beta the model was trained with.

        Deterministic: the expectation over z is a mean over `n_draws` draws whose noise depends on the row alone.
        """
        distortion, rate = self.distortion_and_rate(X, context=context, n_draws=n_draws)
        return -(distortion + rate)

    def distortion_and_rate(self, X: Any, *, context: Any = None, n_draws: int = 16) -> tuple[np.ndarray, np.ndarray]:
        """Distortion -E log p(x|z) and rate KL(q || p) of every row, two arrays (n,), in nats."""
        rows, model = self._open(X, context, scored=True)
        return score.distortion_and_rate(model, rows, n_draws)

    def score(self, X: Any, y: Any = None, *, context: Any = None) -> float:
        """Mean evidence lower bound at beta = 1, in nats per row: larger is better, and comparable across betas."""
        return float(self.score_samples(X, context=context).mean())

    def log_likelihood(
        self, X: Any, *, context: Any = None, n_draws: int = 1000, random_state: Any = 0
    ) -> score.LogLikelihood:
        """Importance-weighted log p(x), in nats per row, with its standard error and effective sample size.

        See `elbowroom.tasks.score.LogLikelihood` (Burda et al. 2016).
        """
        rows, _ = self._open(X, context, scored=True)
        return score.log_likelihood(self.model_, rows, int(n_draws), resolve_seed(random_state))

    def diagnose(self, X: Any, *, context: Any = None) -> diagnose.Diagnosis:
        """Active units, rate per latent, mutual information, aggregate KL and a verdict in words, over all rows of X."""
        rows, model = self._open(X, context, scored=True)
        return diagnose.diagnose(model, rows, self.beta_.final)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fitted model as a folder of data (JSON, safetensors, a card); `elbowroom.load` reads it."""
        from elbowroom import artefact

        return artefact.save(self, path)

    # ---- scikit-learn ----------------------------------------------------------------------------------------------

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the latents: latent0, latent1, ..."""
        check_is_fitted(self)
        return np.asarray([f"latent{i}" for i in range(self.n_latents)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _open(self, X: Any, context: Any, scored: bool = False) -> tuple[Rows, Any]:
        """The rows of X, checked, and the model in the precision that fits them."""
        check_is_fitted(self)
        X, context = self._unpack(X, context)
        x = self._read(X, reset=False)
        codes = self._encode_context(context, x.shape[0], reset=False)
        rows = self._scored_rows(x, codes) if scored else rows_of(x, codes)
        if hasattr(self.model_.likelihood, "check"):
            names = getattr(self, "feature_names_in_", None)
            for i, batch in enumerate(rows.in_order(4096)):
                self.model_.likelihood.check(batch.x, names, 4096 * i)
        dtype = torch.float32 if x.dtype == np.float32 else torch.float64
        if rows.context is not None:
            rows.context = rows.context.to(dtype)
        return rows, self._model(dtype)

    def _model(self, dtype: torch.dtype) -> Any:
        """The model, or a float64 copy: in float32 a row's result changes in the last bits with its company."""
        return self.model_ if dtype == torch.float32 else copy.deepcopy(self.model_).double()


def _tensor(codes: np.ndarray | None, dtype: torch.dtype) -> Tensor | None:
    return None if codes is None else torch.as_tensor(codes, dtype=dtype)
