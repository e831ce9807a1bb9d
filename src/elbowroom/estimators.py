"""TableVAE, ImageVAE, CountVAE: variational autoencoders as scikit-learn estimators."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from elbowroom import tables
from elbowroom.base import BaseVAE
from elbowroom.bodies import ImageDecoder, ImageEncoder, check_widths
from elbowroom.data import cells, choose, door, images
from elbowroom.data.rows import BinarizedRows, Rows, rows_of
from elbowroom.data.schema import Schema
from elbowroom.errors import DataError, ParameterError, counted, warn
from elbowroom.recommender import InteractionVAE
from elbowroom.state import restore

FOR_COUNTS = ("auto", "poisson", "negative_binomial", "multinomial")  # likelihoods


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
        "auto" looks at the data and says what it chose (`likelihood_`, `likelihood_reason_`); a name with options such
        as "gaussian:scale=shared"; or groups of columns, {"bernoulli": ["smoker"], "gaussian": ["age", "income"]}; or
        your own module, which maps what the decoder makes to p(x|z), such as one of `torch.distributions`, and wants
        `n_outputs` values a row (by default as many as there are features).
    prior : str
        "standard", "mixture:components=100", "vamp:components=500", or "fitted", a mixture that is fitted to
        the encodings after training. "auto" is "fitted" for a table with a schema, and "standard" for numbers.
    covariance : str
        Of the posterior: "diagonal" or "full".
    hidden : sequence of int
        Widths of the hidden layers of the encoder; the decoder mirrors them. () makes a linear model.
    activation : str
        "silu", "relu", "tanh", "gelu" or "softplus".
    gated : bool
        Gated linear units instead of the activation.
    encoder, decoder : module or None
        Your own networks. The encoder maps what it is shown of the rows, (n, D) values of order one, to features of
        any width; the decoder maps latents (n, n_latents) to what the likelihood wants. With context, their `forward`
        takes it as its second argument.
    objective : str
        "elbo", "elbo:free_bits=0.1" or "iwae:draws=8".
    epochs : int or "auto"
        "auto" aims at 4,000 steps.
    batch_size : int
    learning_rate : float
        Peak of the schedule.
    validation_fraction : float
        Share of the rows that is held out to choose the best epoch; 0 for none.
    patience : int or None
        Epochs without a better held-out loss before training stops early; None never stops early.
    average : bool
        Keep a moving average of the weights.
    device : str
        "auto", "cpu", "cuda", "mps".
    precision : str
        "float32" or "bfloat16", in training.
    random_state : int, generator or None
        The same seed, machine and number of threads give the same bits.
    verbose : bool
        Show progress.
    schema : "auto", "infer", "robust", Schema, mapping or None
        What the columns hold (docs/tables.md). "auto" gives them kinds where X has text, categories, dates or
        holes, and reads complete numbers as numbers; "infer" does so always, and so does "robust", where numbers are
        `Measured` whatever they look like; a Schema, {"age": "count"} or SDV's metadata is completed from the data;
        None wants complete numbers.

    Attributes
    ----------
    model_ : VAE
    history_ : History
    diagnosis_ : Diagnosis
    likelihood_, likelihood_reason_, epochs_, seed_, beta_
        What the parameters came to.

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
    prior: str = "auto"
    schema: str | Schema | Mapping[str, Any] | None = "auto"

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseVAE._parameter_constraints,
        "schema": [str, Schema, dict, None],
    }

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tables.allows_holes(self)
        return tags

    def _read(self, X: Any, reset: bool) -> np.ndarray:
        return tables.read_rows(self, X, reset)

    def _choose(self, facts: choose.Facts) -> choose.Choice:
        return choose.choose_table(facts)

    def _choose_likelihood(self, rows: Rows) -> tuple[nn.Module, Any, str]:
        return super()._choose_likelihood(rows) if self.schema_ is None else tables.likelihood_of(self.schema_)

    def _write(self, values: Tensor, like: Any = None) -> Any:
        if self.schema_ is None:
            return super()._write(values, like)
        library = self.frame_kind_ if like is None else door.frame_kind(like)
        return tables.write_rows(self.schema_, values.numpy(), library, like)

    def impute(
        self, X: Any, n: int | None = None, how: str = "likely", *, context: Any = None, random_state: Any = 0
    ) -> Any:
        """X with its missing cells filled in; all others are as they were.

        Parameters
        ----------
        n : int or None
            None for one table; else a list of n tables whose missing cells are drawn from p(missing | known) each, by
            importance resampling: what differs between them is what is not known (multiple imputation, Rubin 1987).
        how : str
            What a single table has: "likely", the most likely category and the median of numbers, or "mean", the
            mean of
            numbers.
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

        With `given`, such as {"country": "DE"}, rows from the model given these cells, by importance resampling: every
        row has these values, to the last digit. None asks for a missing cell. What no row can have is refused, with
        the values that are nearest or known.
        """
        if given is None:
            return super().sample(n_samples, mean=mean, context=context, random_state=random_state)
        return tables.sample_given(self, n_samples, mean, given, context, random_state)

    @property
    def _prior(self) -> str:
        if self.prior != "auto":
            return self.prior
        return "standard" if self.schema_ is None else "fitted"

    @property
    def _cells(self) -> list[str] | None:
        return super()._cells if self.schema_ is None else list(self.schema_.cells)


@dataclass(eq=False, repr=False, match_args=False)
class CountVAE(BaseVAE):
    """A variational autoencoder for counts: arrays or scipy sparse matrices (n, D) of whole numbers, or AnnData.

    Sparse matrices stay sparse: batches alone are made dense. Parameters are those of `TableVAE`, and two for AnnData.

    Parameters
    ----------
    layer : str or None
        Layer of the AnnData that holds the counts; None for `.X`.
    batch_key : str or None
        Column of `.obs` that becomes the context, such as the experimental batch. A `context` that is given to
        `transform`, `reconstruct`, `score` and the other methods is used in its place: cells as if of that batch.
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
        self.__dict__.pop("model_", None)  # whose variables were others
        door.refuse_collections(X)
        if door.is_anndata(X):
            self._check_cells(X, context)
            self.var_names_ = X.var_names.to_numpy(dtype=object, copy=True)
        elif self.layer is not None or self.batch_key is not None:
            raise ParameterError(
                "layer and batch_key name parts of an AnnData",
                f"layer={self.layer!r} and batch_key={self.batch_key!r} are given with a {type(X).__name__}",
                "Leave them out, and give fit a context=..., or pass an AnnData.",
            )
        else:
            self.var_names_ = None
        return super().fit(X, y, context=context, checkpoint=checkpoint)

    fit.__doc__ = BaseVAE.fit.__doc__

    def _check_cells(self, adata: Any, context: Any) -> None:
        """Refuse an AnnData that a model can not be fitted on."""
        cells.check_variables(adata)
        if self.batch_key is not None:
            if context is not None:
                raise ParameterError(
                    "a model has one context in its fit",
                    f"fit has context=... beside batch_key={self.batch_key!r}",
                    "Leave out one of them.",
                )
            found = cells.labels(adata, self.batch_key)
            door.refuse_many(found, adata.obs[self.batch_key].unique(), f"batch_key={self.batch_key!r}")
        if isinstance(self.likelihood, str) and self.likelihood.partition(":")[0] in FOR_COUNTS:
            cells.check_counts(adata, self.layer)

    def _unpack(self, X: Any, context: Any) -> tuple[Any, Any]:
        if not door.is_anndata(X):
            return X, context
        X = cells.same_variables(X, getattr(self, "var_names_", None))
        if self.batch_key is not None and context is None:
            context = cells.labels(X, self.batch_key)
        return cells.matrix(X, self.layer), context

    def encode_to(self, adata: Any, key: str = "X_vae") -> None:
        """Write the posterior means of an AnnData into its `.obsm[key]`."""
        if not door.is_anndata(adata):
            raise DataError(
                "encode_to writes into an AnnData", f"it is of type {type(adata).__name__}", "Use transform."
            )
        adata.obsm[key] = self.transform(adata)

    def _read(self, X: Any, reset: bool) -> Any:
        x = door.validated(self, X, reset, accept_sparse="csr")
        if hasattr(x, "has_canonical_format") and not x.has_canonical_format:
            x = x.copy()
            x.sum_duplicates()
        door.refuse_negative(x, type(self).__name__, self._names)
        return x

    def _first_fraction(self, facts: choose.Facts) -> str:
        row, column, value = facts.first_fraction or (0, 0, 0.0)
        name = column if self._names is None else repr(self._names[column])
        return f"{'first: ' * (facts.fractions > 1)}row {row}, column {name}, {value:.10g}"

    def _choose(self, facts: choose.Facts) -> choose.Choice:
        if choose.are_broken_counts(facts):
            raise DataError(
                "counts must be whole numbers",
                f"{counted(facts.fractions, 'value is', 'values are')} not ({self._first_fraction(facts)})",
                "Correct them, or round them all: np.rint(X). To model such numbers, choose likelihood='gaussian'.",
            )
        choice = choose.choose_counts(facts)
        if choice.likelihood == "gaussian":
            warn(f"likelihood gaussian: {choice.why}", 4)
        return choice


@dataclass(eq=False, repr=False, match_args=False)
class ImageVAE(BaseVAE):
    """A variational autoencoder for images: arrays or tensors (n, h, w), (n, h, w, c) or (n, c, h, w).

    Pixels are 8-bit, from 0 to 1, or black and white alone; later images must be on the scale of the fit
    (docs/likelihoods.md).

    Parameters are those of `TableVAE`, and these.

    Parameters
    ----------
    layout : str
        "auto" finds where the channels are: (n, h, w, 3) or, as in PyTorch, (n, 3, h, w); "channels_last" or
        "channels_first" says it. What the model makes has the layout of what it was fitted on.
    body : str
        "conv", "residual" (with `blocks` residual blocks a stage) or "mlp" (with `hidden` layers).
    channels : sequence of int
        Channels of the stages of a convolutional body; each halves height and width.
    blocks : int
        Residual blocks in every stage of a residual body.
    binarize : str or None
        None; "threshold" makes pixels 1 above half of the range; "sample" draws them anew in every epoch with the
        intensity as the chance, and once, fixed by the image's content, when images are scored (dynamic binarisation).
    """

    n_latents: int = 16
    _: KW_ONLY
    layout: str = "auto"
    body: str = "conv"
    channels: Sequence[int] = (32, 64)
    blocks: int = 1
    binarize: str | None = None

    _scored_in: ClassVar[torch.dtype] = torch.float32  # torch has no fast convolution for float64
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseVAE._parameter_constraints,
        "layout": [StrOptions({"auto", "channels_first", "channels_last"})],
        "body": [StrOptions({"conv", "residual", "mlp"})],
        "channels": ["array-like"],
        "blocks": [Interval(Integral, 1, None, closed="left")],
        "binarize": [StrOptions({"threshold", "sample"}), None],
    }

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def _read(self, X: Any, reset: bool) -> np.ndarray:
        x = door.validated(self, X, reset, ensure_2d=False, allow_nd=True)
        if x.ndim not in (3, 4) or 0 in x.shape:
            raise DataError(
                "images must have the shape (n, height, width), (n, height, width, channels) or channels first",
                f"the shape is {x.shape}",
                "Reshape them, for example X.reshape(-1, 28, 28); for a table use TableVAE.",
            )
        if reset:
            self._learn_images(x)
        else:
            images.check_shape(x, self.image_shape_, self._layout)
            images.check_scale(x, self._pixels, self.pixel_range_)
        if self._recoded:
            x = (x == self.pixel_range_[1]).astype(np.uint8)
        last = images.channels_last(x, self._layout)
        flat = (last if x.ndim == 3 else np.moveaxis(last, -1, 1)).reshape(len(x), -1)
        return flat if self.binarize is None else self._binarized(flat)

    def _learn_images(self, x: np.ndarray) -> None:
        """Layout, shape and scale of the images of a fit."""
        self.layout_ = images.layout_of(x.shape, self.layout)
        self.image_shape_ = tuple(int(size) for size in images.channels_last(x, self.layout_).shape[1:])
        self.pixels_, self.pixel_range_ = images.pixels_of(x)
        if self.pixels_ == "binary" and (self.binarize is not None or self.likelihood not in ("auto", "bernoulli")):
            self.pixels_ = "whole"

    def _binarized(self, flat: np.ndarray) -> np.ndarray:
        """Zeros and ones by threshold, or chances in [0, 1] to draw them with."""
        high = self.pixel_range_[1]
        if flat.min() < 0 or flat.max() > high:
            raise DataError(
                f"binarize={self.binarize!r} needs pixels from 0 to {high:g}",
                f"they range from {flat.min():g} to {flat.max():g}",
                "Rescale the images, or use binarize=None.",
            )
        if self.binarize == "threshold":
            return (flat > high / 2).astype(np.uint8)
        return flat.astype(np.float32) / np.float32(high)  # the draws depend on these bits, whatever the dtype was

    def _dtype(self, values: Any) -> torch.dtype:
        return self._scored_in

    def _rows(self, x: np.ndarray, context: np.ndarray | None) -> Rows:
        rows = rows_of(x, context)
        return BinarizedRows(rows.x, rows.context) if self.binarize == "sample" else rows

    def _choose(self, facts: choose.Facts) -> choose.Choice:
        if self.binarize is not None:
            return choose.Choice("bernoulli", f"pixels are made 0 or 1 (binarize={self.binarize!r})")
        if self._recoded:
            black, white = self.pixel_range_
            return choose.Choice("bernoulli", f"every pixel is {black:g} or {white:g}")
        return choose.choose_image(facts)

    def _write(self, values: Tensor, like: Any = None) -> np.ndarray:
        array = values.numpy()
        if self._recoded:
            black, white = self.pixel_range_
            array = array * np.float32(white - black) + np.float32(black)
        if len(self.image_shape_) == 2:
            return array.reshape(-1, *self.image_shape_)
        height, width, channels = self.image_shape_
        return images.as_given(np.moveaxis(array.reshape(-1, channels, height, width), 1, -1), self._layout)

    def _encoder(self, inputs: int, context: int, code: int) -> nn.Module:
        if self.body == "mlp":
            return super()._encoder(inputs, context, code)
        channels, height, width = self._shape
        shape = (inputs // (channels * height * width) * channels, height, width)
        return ImageEncoder(shape, *self._stages, self.activation, context, code)

    def _decoder(self, outputs: int, context: int, code: int) -> nn.Module:
        if self.body == "mlp":
            return super()._decoder(outputs, context, code)
        per_pixel = outputs // math.prod(self._shape)
        return ImageDecoder(self.n_latents, self._shape, *self._stages, per_pixel, self.activation, context, code)

    @property
    def _layout(self) -> images.Layout:
        """Where the channels are; models of earlier versions have them last."""
        return getattr(self, "layout_", "channels_last")

    @property
    def _pixels(self) -> images.Pixels:
        return getattr(self, "pixels_", "real")

    @property
    def _recoded(self) -> bool:
        """Whether the model has zeros and ones for pixels that are black and white in other numbers."""
        return self._pixels == "binary" and self.pixel_range_ != (0, 1)

    @property
    def _black_and_white(self) -> tuple[float, float]:
        """The values of black and white pixels in what the model makes."""
        return self.pixel_range_ if self.binarize is None else (0.0, 1.0)

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        height, width, *channels = self.image_shape_
        return (channels[0] if channels else 1, height, width)

    @property
    def _stages(self) -> tuple[tuple[int, ...], int, int]:
        """Channels of the stages, residual blocks in each, and the width of the dense layer."""
        if not len(self.channels) or self.gated:
            raise ParameterError(
                f"body={self.body!r} needs the channels of at least one stage, and has no gates",
                f"channels={self.channels!r} and gated={self.gated!r}",
                "Write channels=(32, 64) and gated=False, or use body='mlp'.",
            )
        hidden = check_widths("hidden", self.hidden)
        return (
            check_widths("channels", self.channels),
            int(self.blocks) if self.body == "residual" else 0,
            hidden[0] if hidden else 256,
        )


def load(path: str | os.PathLike[str]) -> BaseVAE:
    """Load a fitted estimator from the folder that its `save` wrote.

    Raises
    ------
    ArtefactError
        If the folder is missing, broken, foreign, hostile or from another version. Nothing in it is run.
    """
    return restore(ESTIMATORS, door.path_of(path, "path"))


ESTIMATORS: dict[str, type[BaseVAE]] = {kind.__name__: kind for kind in (TableVAE, ImageVAE, CountVAE, InteractionVAE)}
