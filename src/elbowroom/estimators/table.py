"""`TableVAE`: rows of numbers, or tables of any columns with missing values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from elbowroom.data import validation
from elbowroom.data.dataset import Rows
from elbowroom.data.tables.schema import Schema
from elbowroom.estimators import tables
from elbowroom.estimators.base import BaseVAE
from elbowroom.likelihoods import auto


@dataclass(eq=False, repr=False, match_args=False)
class TableVAE(BaseVAE):
    """A variational autoencoder for tables: arrays (n, D), and pandas, polars or pyarrow frames of any columns.

    Parameters
    ----------
    n_latents : int
        Number of latents.
    beta : float, str or Beta
        Weight of the rate in nats per row; 1 is the evidence lower bound. A range, "0.01..10", learns every beta in one
        network, for `at`, `curve` and `pick`. Other policies: "warmup:end=1,fraction=0.3", "targetrate:nats=12", ...
    likelihood : str, mapping or module
        "auto" chooses by the data (see `likelihood_`, `likelihood_reason_`); a name with options such as
        "gaussian:scale=shared"; groups of columns, {"bernoulli": ["smoker"], "gaussian": ["age", "income"]}; or your
        own module, which maps the decoder's output to p(x|z), such as one of `torch.distributions`, and takes
        `n_outputs` values per row (by default as many as there are features).
    prior : str or object
        "standard", "mixture:components=100", "vamp:components=500", or "fitted", a mixture that is fitted to
        the encodings after training. "auto" is "fitted" for a table with a schema, and "standard" for numbers.
        Or your own: an object whose `build(size, features, code)` returns a module (docs/howto/).
    covariance : str
        Covariance of the posterior: "diagonal" or "full".
    hidden : sequence of int
        Widths of the hidden layers of the encoder; the decoder mirrors them. () makes a linear model.
    activation : str
        "silu", "relu", "tanh", "gelu" or "softplus".
    gated : bool
        Gated linear units instead of the activation.
    encoder, decoder : module or None
        Your own networks. The encoder maps its input, (n, D) values of order one, to features of any width; the decoder
        maps latents (n, n_latents) to the likelihood's parameters. With context, their `forward` takes it as its second
        argument.
    objective : str or callable
        "elbo", "elbo:free_bits=0.1" or "iwae:draws=8", or your own: `objective(model, batch, noise, code)`, which
        returns `Terms` (docs/howto/).
    epochs : int or "auto"
        "auto" aims at 4,000 steps.
    batch_size : int
    learning_rate : float
        Peak of the schedule.
    validation_fraction : float
        Share of the rows that is held out to select the best epoch; 0 for none.
    patience : int or None
        Epochs without a better held-out loss before training stops early; None never stops early.
    average : bool
        Keep a moving average of the weights.
    device : str
        "auto", "cpu", "cuda", "mps".
    precision : str
        Precision of training, "float32" or "bfloat16".
    random_state : int, generator or None
        The same seed, machine and number of threads give the same bits.
    verbose : bool
        Show progress and what is chosen, on stderr; where `logging` takes records of level INFO, as such records of the
        logger "elbowroom" instead.
    schema : "auto", "infer", "robust", Schema, mapping or None
        The kinds of columns (docs/tables.md). "auto" infers them if X has text, categories, dates or missing values,
        and reads complete numbers as numbers; "infer" always infers them, and so does "robust", where all numbers are
        `Measured`; a Schema, {"age": "count"} or SDV's metadata is completed from the data; None requires complete
        numbers.

    Attributes
    ----------
    model_ : VAE
    history_ : History
    diagnosis_ : Diagnosis
    likelihood_, likelihood_reason_, epochs_, seed_, beta_
        The resolved values of the parameters.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from elbowroom import TableVAE
    >>> X = load_wine().data
    >>> model = TableVAE(n_latents=2, epochs=20, random_state=0).fit(X)
    >>> model.transform(X).shape
    (178, 2)
    """

    _: KW_ONLY
    prior: Any = "auto"
    schema: str | Schema | Mapping[str, Any] | None = "auto"

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseVAE._parameter_constraints,
        "schema": [str, Schema, dict, None],
    }

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tables.allows_missing(self)
        return tags

    def _read(self, X: Any, reset: bool) -> np.ndarray:
        return tables.read_rows(self, X, reset)

    def _choose(self, facts: auto.Facts) -> auto.Choice:
        return auto.choose_table(facts)

    def _choose_likelihood(self, rows: Rows) -> tuple[nn.Module, Any, str]:
        return super()._choose_likelihood(rows) if self.schema_ is None else tables.likelihood_of(self.schema_)

    def _write(self, values: Tensor, like: Any = None) -> Any:
        if self.schema_ is None:
            return super()._write(values, like)
        library = self.frame_kind_ if like is None else validation.frame_kind(like)
        return tables.write_rows(self.schema_, values.numpy(), library, like)

    def impute(
        self, X: Any, n: int | None = None, how: str = "likely", *, context: Any = None, random_state: Any = 0
    ) -> Any:
        """X with its missing cells filled in; all others are unchanged.

        Parameters
        ----------
        n : int or None
            None for one table; else a list of n tables whose missing cells are drawn from p(missing | known), by
            importance resampling: their differences show the uncertainty (multiple imputation, Rubin 1987).
        how : str
            The values of a single table: "likely", the most likely category and the median of numbers, or "mean", the
            mean of numbers.
        """
        return tables.impute(self, X, n, how, context, random_state)

    def sample(
        self,
        n_samples: int = 1,
        *,
        mean: bool = False,
        given: Mapping[str, Any] | None = None,
        context: Any = None,
        random_state: Any = None,
    ) -> Any:
        """New rows: z from the prior, then x from p(x|z), or its mean with `mean=True`; in the shape of the data.

        With `given`, such as {"country": "DE"}, rows are drawn given these cells, by importance resampling: every row
        has these values, to the last digit. None stands for a missing cell. Impossible values are refused, with the
        values that are nearest or known.
        """
        if given is None:
            return super().sample(n_samples, mean=mean, context=context, random_state=random_state)
        return tables.sample_given(self, n_samples, mean, given, context, random_state)

    @property
    def _prior(self) -> Any:
        if not isinstance(self.prior, str) or self.prior != "auto":
            return self.prior
        return "standard" if self.schema_ is None else "fitted"

    @property
    def _choices(self) -> list[str]:
        return super()._choices if self.schema_ is None else self.schema_.lines()

    @property
    def _cells(self) -> list[str] | None:
        return super()._cells if self.schema_ is None else list(self.schema_.cells)
