"""`CountVAE`: counts, such as those of genes in cells or of words in texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

from elbowroom.data import anndata, validation
from elbowroom.errors import DataError, ParameterError, counted, warn
from elbowroom.estimators.base import BaseVAE
from elbowroom.likelihoods import auto

FOR_COUNTS = ("auto", "poisson", "negative_binomial", "multinomial")  # likelihoods


@dataclass(eq=False, repr=False, match_args=False)
class CountVAE(BaseVAE):
    """A variational autoencoder for counts: arrays or scipy sparse matrices (n, D) of whole numbers, or AnnData.

    Sparse matrices stay sparse: only batches are made dense. Parameters are those of `TableVAE`, and two for AnnData.

    Parameters
    ----------
    layer : str or None
        Layer of the AnnData that holds the counts; None for `.X`.
    batch_key : str or None
        Column of `.obs` that becomes the context, such as the experimental batch. A `context` argument of
        `transform`, `reconstruct`, `score` and the other methods replaces it: cells as if from that batch.
    """

    n_latents: int = 10
    _: KW_ONLY
    hidden: Sequence[int] = (128, 128)
    layer: str | None = None
    batch_key: str | None = None

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseVAE._parameter_constraints,
        "layer": [str, None],
        "batch_key": [str, None],
    }

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = True
        return tags

    def fit(
        self, X: Any, y: Any = None, *, context: Any = None, checkpoint: str | os.PathLike[str] | None = None
    ) -> Self:
        self._check_parameters()
        self.__dict__.pop("model_", None)  # whose variables differed
        validation.refuse_collections(X)
        if validation.is_anndata(X):
            self._check_cells(X, context)
            self.var_names_ = X.var_names.to_numpy(dtype=object, copy=True)
        elif self.layer is not None or self.batch_key is not None:
            raise ParameterError(
                "layer and batch_key need an AnnData",
                f"layer={self.layer!r} and batch_key={self.batch_key!r} are given with a {type(X).__name__}",
                "Pass an AnnData (.h5ad), or leave them out; in Python, fit takes labels of the rows as context=...",
            )
        else:
            self.var_names_ = None
        return super().fit(X, y, context=context, checkpoint=checkpoint)

    fit.__doc__ = BaseVAE.fit.__doc__

    def _check_cells(self, adata: Any, context: Any) -> None:
        """Refuse an AnnData on which a model can not be fitted."""
        anndata.check_variables(adata)
        if self.batch_key is not None:
            if context is not None:
                raise ParameterError(
                    "a model has one context in its fit",
                    f"fit has context=... beside batch_key={self.batch_key!r}",
                    "Leave out one of them.",
                )
            found = anndata.labels(adata, self.batch_key)
            validation.refuse_many(found, adata.obs[self.batch_key].unique(), f"batch_key={self.batch_key!r}")
        if isinstance(self.likelihood, str) and self.likelihood.partition(":")[0] in FOR_COUNTS:
            anndata.check_counts(adata, self.layer)

    def _unpack(self, X: Any, context: Any) -> tuple[Any, Any]:
        if not validation.is_anndata(X):
            return X, context
        X = anndata.same_variables(X, getattr(self, "var_names_", None))
        if self.batch_key is not None and context is None:
            context = anndata.labels(X, self.batch_key)
        return anndata.matrix(X, self.layer), context

    def encode_to(self, adata: Any, key: str = "X_vae") -> None:
        """Write the posterior means of an AnnData into its `.obsm[key]`."""
        if not validation.is_anndata(adata):
            raise DataError(
                "encode_to writes into an AnnData", f"it is of type {type(adata).__name__}", "Use transform."
            )
        adata.obsm[key] = self.transform(adata)

    def _read(self, X: Any, reset: bool) -> Any:
        x = validation.validated(self, X, reset, accept_sparse="csr")
        if hasattr(x, "has_canonical_format") and not x.has_canonical_format:
            x = x.copy()
            x.sum_duplicates()
        validation.refuse_negative(x, type(self).__name__, self._names)
        return x

    def _first_fraction(self, facts: auto.Facts) -> str:
        row, column, value = facts.first_fraction or (0, 0, 0.0)
        name = column if self._names is None else repr(self._names[column])
        return f"{'first: ' * (facts.fractions > 1)}row {row}, column {name}, {value:.10g}"

    def _choose(self, facts: auto.Facts) -> auto.Choice:
        if auto.are_broken_counts(facts):
            raise DataError(
                "counts must be whole numbers",
                f"{counted(facts.fractions, 'value is', 'values are')} not ({self._first_fraction(facts)})",
                "Correct them, or round them all: np.rint(X). To model such numbers, choose likelihood='gaussian'.",
            )
        choice = auto.choose_counts(facts)
        if choice.likelihood == "gaussian":
            warn(f"likelihood gaussian: {choice.why}", 4)
        return choice
