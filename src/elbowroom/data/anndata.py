"""Access to AnnData without importing the package: the matrix of counts, labels of cells, names of variables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse

from elbowroom.data import validation
from elbowroom.errors import DataError, counted


def matrix(adata: Any, layer: str | None) -> Any:
    """The matrix (cells, variables) of a layer, or `.X`."""
    values = adata.X if layer is None else member(adata.layers, layer, "layer")
    if values is None:
        layers = ", ".join(map(repr, adata.layers)) or "none"
        raise DataError("the AnnData must have its counts in .X", f".X is empty; its layers are {layers}", LAYER)
    if hasattr(values, "to_memory") and not sparse.issparse(values):
        raise DataError("the AnnData must be in memory", "it is backed by a file", "Pass adata.to_memory().")
    return values


def labels(adata: Any, key: str) -> np.ndarray:
    """A column of `.obs` with a category for every cell."""
    column = member(adata.obs, key, "batch_key")
    if column.ndim != 1:
        raise DataError("the columns of .obs must have different names", f"{key!r} comes more than once", "Rename it.")
    values = column.to_numpy()
    validation.refuse_missing(values, f"batch_key={key!r} must hold a label for every cell")
    return values


def check_variables(adata: Any) -> None:
    """Raise if variables have duplicate names."""
    twice = np.flatnonzero(adata.var_names.duplicated())
    if len(twice):
        name = adata.var_names[twice[0]]
        first = list(adata.var_names).index(name)
        raise DataError(
            "the variables of the AnnData must have different names",
            f"{name!r} comes more than once (columns {first} and {twice[0]}), {counted(len(twice), 'name')} in all",
            "Call adata.var_names_make_unique().",
        )


def same_variables(adata: Any, names: np.ndarray | None) -> Any:
    """An AnnData with its variables in the order of those that a model was fitted on."""
    if names is None or list(adata.var_names) == list(names):
        return adata
    check_variables(adata)
    known = set(adata.var_names)
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(
            f"the AnnData must have the {counted(len(names), 'variable')} that the model was fitted on",
            f"{len(missing):,} of them {'is' if len(missing) == 1 else 'are'} missing (first: {missing[0]!r})",
            "Use the same reference and the same identifiers of genes.",
        )
    return adata[:, list(names)]


def check_counts(adata: Any, layer: str | None) -> None:
    """Raise if a matrix does not hold counts and another one of the AnnData does."""
    values = _stored(matrix(adata, layer))
    if values is None or _are_counts(values):
        return
    elsewhere = next(_elsewhere(adata, layer), None)
    if elsewhere is not None:
        where = ".X" if layer is None else f"layer {layer!r}"
        raise DataError(
            "CountVAE is for counts (whole numbers from 0)",
            f"{where} holds other numbers, and {elsewhere[0]} holds counts",
            f"{elsewhere[1]} To model the other numbers, choose likelihood='gaussian'.",
        )


def _elsewhere(adata: Any, layer: str | None) -> Iterator[tuple[str, str]]:
    """Other places of an AnnData that hold counts, and how to use them; the most common place first."""
    for name in sorted(adata.layers, key=lambda name: (name != "counts", name)):
        if name != layer and _hold_counts(adata.layers[name]):
            yield f"layer {name!r}", f"Choose layer='{name}'."
    if layer is not None and _hold_counts(adata.X):
        yield ".X", "Leave out layer."
    if adata.raw is not None and _hold_counts(adata.raw.X):
        yield ".raw", "Pass adata.raw.to_adata()."


def _hold_counts(matrix: Any) -> bool:
    values = _stored(matrix)
    return values is not None and values.dtype.kind != "b" and _are_counts(values)


def _stored(matrix: Any) -> np.ndarray | None:
    """The stored numbers of a matrix, flat; None if they are not in memory."""
    values = matrix.data if sparse.issparse(matrix) else matrix
    return values.reshape(-1) if isinstance(values, np.ndarray) and values.dtype.kind in "biuf" else None


def _are_counts(values: np.ndarray) -> bool:
    parts = (values[start : start + AT_ONCE] for start in range(0, len(values), AT_ONCE))
    return all(bool((np.isfinite(part) & (part >= 0) & (part == np.floor(part))).all()) for part in parts)


def member(mapping: Any, key: str, what: str) -> Any:
    """mapping[key]; raises an error that lists the keys if it is missing."""
    if key not in mapping:
        raise DataError(
            f"{what} must name a member of the AnnData",
            f"{key!r} is not there",
            f"It has {', '.join(map(repr, mapping)) or 'none'}.",
        )
    return mapping[key]


AT_ONCE = 2**22  # values per pass
LAYER = "Choose the layer that has them, such as layer='counts'."
