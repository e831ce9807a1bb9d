"""VAEImputer and VAEDetector: imputation and outlier detection with scikit-learn's contracts, by a TableVAE inside."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, OutlierMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from elbowroom.data import validation
from elbowroom.estimators import tables
from elbowroom.estimators.table import TableVAE
from elbowroom.tasks.impute import HOWS
from elbowroom.utils.constraints import HasMethods, Interval, StrOptions


class _AroundTable(BaseEstimator):
    """What both share: a TableVAE that is fitted inside, as `estimator_`."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "impute"]), None],
        "random_state": ["random_state", np.random.Generator],
    }
    _default: ClassVar[dict[str, Any]] = {}
    estimator: Any
    random_state: Any

    def _fit(self, X: Any) -> Any:
        validation.check_parameters(self)
        inner = TableVAE(**self._default) if self.estimator is None else clone(self.estimator)
        if self.random_state is not None:
            inner.set_params(random_state=self.random_state)
        self.estimator_ = inner.fit(X)
        self.n_features_in_ = inner.n_features_in_
        if hasattr(inner, "feature_names_in_"):
            self.feature_names_in_ = inner.feature_names_in_
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return inner

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")


class VAEImputer(OneToOneFeatureMixin, TransformerMixin, _AroundTable):
    """Fill in the missing cells of arrays and frames: an imputer as scikit-learn has them.

    Parameters
    ----------
    estimator : TableVAE or None
        The estimator to fit; None for `TableVAE(schema="infer")`.
    how : str
        "mean", or "likely" for the median; for categories both give the most likely one.
    random_state : int, generator or None

    Attributes
    ----------
    estimator_ : TableVAE
        Its `impute(X, n=5)` gives multiple imputations.

    Examples
    --------
    >>> import numpy as np
    >>> from elbowroom import TableVAE, VAEImputer
    >>> X = np.array([[1.0, 2.0], [2.0, 4.1], [3.0, np.nan], [4.0, 8.2]] * 20)
    >>> imputer = VAEImputer(TableVAE(2, schema="infer", epochs=5), random_state=0)
    >>> bool(np.isnan(imputer.fit_transform(X)).any())
    False
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **_AroundTable._parameter_constraints,
        "how": [StrOptions(set(HOWS))],
    }
    _default: ClassVar[dict[str, Any]] = {"schema": "infer"}

    def __init__(self, estimator: Any = None, *, how: str = "mean", random_state: Any = None) -> None:
        self.estimator, self.how, self.random_state = estimator, how, random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the model on rows with missing values."""
        self._fit(X)
        return self

    def transform(self, X: Any) -> Any:
        """X with its missing cells filled in, of the same type; all others are unchanged."""
        check_is_fitted(self)
        return self.estimator_.impute(X, how=self.how)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class VAEDetector(OutlierMixin, _AroundTable):
    """Detect outlying rows of arrays and frames, and the columns responsible.

    A row's score is its log-likelihood log p(x), by importance sampling.

    Parameters
    ----------
    estimator : TableVAE or None
        The estimator to fit; None for `TableVAE(3, hidden=(), schema="robust")`: a linear model with heavy tails,
        which outliers hardly influence.
    contamination : float
        Share of the training rows that are labelled outliers.
    n_draws : int
        Draws of the importance sampling.
    random_state : int, generator or None

    Attributes
    ----------
    estimator_ : TableVAE
    offset_ : float
        The score below which a row is an outlier.
    usual_ : array (D,)
        What each column contributes on average.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **_AroundTable._parameter_constraints,
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "n_draws": [Interval(Integral, 2, None, closed="left")],
    }
    _default: ClassVar[dict[str, Any]] = {"n_latents": 3, "hidden": (), "schema": "robust"}

    def __init__(
        self, estimator: Any = None, *, contamination: float = 0.1, n_draws: int = 64, random_state: Any = None
    ) -> None:
        self.estimator, self.contamination = estimator, contamination
        self.n_draws, self.random_state = n_draws, random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the model on rows, most of which are usual."""
        inner = self._fit(X)
        scores, cells = tables.surprises(inner, X, self.n_draws)
        self.offset_ = float(np.percentile(scores, 100 * self.contamination))
        self.usual_ = cells.mean(0)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x) of every row (n,), in nats: low for outliers."""
        check_is_fitted(self)
        return tables.surprises(self.estimator_, X, self.n_draws)[0]

    def decision_function(self, X: Any) -> np.ndarray:
        """`score_samples` minus `offset_`: negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """-1 for outliers, 1 for all others."""
        return np.where(self.decision_function(X) >= 0, 1, -1)  # a row without a finite score is no usual one

    def contributions(self, X: Any) -> Any:
        """How anomalous each cell is, in nats above its column's average, (n, columns), in the type of X.

        A cell's value is -log p(cell | the other cells of its row): a common value is anomalous if it does not go with
        the rest of its row.
        """
        check_is_fitted(self)
        return tables.beside(X, tables.surprises(self.estimator_, X, self.n_draws)[1] - self.usual_)
