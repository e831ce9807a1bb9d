"""TableVAE, ImageVAE, CountVAE: variational autoencoders as scikit-learn estimators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from scipy import sparse
from scipy.special import ndtr
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from elbowroom.base import BaseVAE
from elbowroom.beta import Beta
from elbowroom.bodies import ImageDecoder, ImageEncoder, check_widths
from elbowroom.data import choose, door
from elbowroom.data.rows import BinarizedRows, Rows, rows_of
from elbowroom.errors import DataError
from elbowroom.objectives import Objective
from elbowroom.randomness import normal_by_row


class TableVAE(BaseVAE):
    """A variational autoencoder for tables of numbers: arrays (n, D) and pandas, polars or pyarrow frames.

    Parameters
    ----------
    n_latents : int
        Number of latents.
    beta : float, str or Beta
        Weight of the rate in nats per row; 1 is the evidence lower bound. Policies: "warmup:end=1,fraction=0.3".
    likelihood : str, mapping or module
        "auto" looks at the data and says what it chose (`likelihood_`, `likelihood_reason_`); a name with options such
        as "gaussian:scale=shared"; or groups of columns, {"bernoulli": ["smoker"], "gaussian": ["age", "income"]}.
    prior : str
        "standard", "mixture:components=100" or "vamp:components=500".
    covariance : str
        Of the posterior: "diagonal" or "full".
    hidden : sequence of int
        Widths of the hidden layers of the encoder; the decoder mirrors them. () makes a linear model.
    activation : str
        "silu", "relu", "tanh", "gelu" or "softplus".
    gated : bool
        Gated linear units instead of the activation.
    encoder, decoder : module or None
        Your own networks: encoder(inputs, context) -> features with an attribute `width`; decoder(z, context).
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

    def _read(self, X: Any, reset: bool) -> np.ndarray:
        if reset:
            self.frame_kind_ = door.frame_kind(X)
        return door.validated(self, X, reset)  # type: ignore[no-any-return]

    def _choose(self, facts: choose.Facts) -> choose.Choice:
        return choose.choose_table(facts)

    def _write(self, values: Tensor, like: Any = None) -> Any:
        kind = self.frame_kind_ if like is None else door.frame_kind(like)
        if kind is None:
            return values.numpy()
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(values.shape[1])])
        return door.to_frame(values.numpy(), list(names), kind)


class CountVAE(BaseVAE):
    """A variational autoencoder for counts: arrays or scipy sparse matrices (n, D) of whole numbers, or AnnData.

    Sparse matrices stay sparse: batches alone are made dense. Parameters are those of `TableVAE`, and two for AnnData.

    Parameters
    ----------
    layer : str or None
        Layer of the AnnData that holds the counts; None for `.X`.
    batch_key : str or None
        Column of `.obs` that becomes the context, such as the experimental batch.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseVAE._parameter_constraints,
        "layer": [str, None],
        "batch_key": [str, None],
    }

    def __init__(
        self,
        n_latents: int = 10,
        *,
        beta: float | str | Beta = 1.0,
        likelihood: str | Mapping[str, Sequence[Any]] | nn.Module = "auto",
        prior: str = "standard",
        covariance: str = "diagonal",
        hidden: Sequence[int] = (128, 128),
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
        layer: str | None = None,
        batch_key: str | None = None,
    ) -> None:
        super().__init__(
            n_latents,
            beta=beta,
            likelihood=likelihood,
            prior=prior,
            covariance=covariance,
            hidden=hidden,
            activation=activation,
            gated=gated,
            encoder=encoder,
            decoder=decoder,
            objective=objective,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            validation_fraction=validation_fraction,
            patience=patience,
            average=average,
            device=device,
            precision=precision,
            random_state=random_state,
            verbose=verbose,
        )
        self.layer = layer
        self.batch_key = batch_key

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = True
        return tags

    def _unpack(self, X: Any, context: Any) -> tuple[Any, Any]:
        if not is_anndata(X):
            return X, context
        counts = X.X if self.layer is None else member(X.layers, self.layer, "layer")
        if self.batch_key is not None:
            context = member(X.obs, self.batch_key, "batch_key").to_numpy()
        return counts, context

    def encode_to(self, adata: Any, key: str = "X_vae") -> None:
        """Write the posterior means of an AnnData into its `.obsm[key]`."""
        adata.obsm[key] = self.transform(adata)

    def _read(self, X: Any, reset: bool) -> Any:
        x = door.validated(self, X, reset, accept_sparse="csr")
        values = x.data if sparse.issparse(x) else x
        if values.size and values.min() < 0:
            raise DataError(
                "counts must not be negative",
                f"Negative values in data passed to {type(self).__name__}: the smallest is {values.min():g}",
                "Pass raw counts: not centred, scaled or log-transformed values.",
            )
        return x

    def _choose(self, facts: choose.Facts) -> choose.Choice:
        return choose.choose_counts(facts)


class ImageVAE(BaseVAE):
    """A variational autoencoder for images: arrays (n, h, w) or (n, h, w, c), 8-bit or with values from 0 to 1.

    Parameters are those of `TableVAE`, and these.

    Parameters
    ----------
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

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseVAE._parameter_constraints,
        "body": [StrOptions({"conv", "residual", "mlp"})],
        "channels": ["array-like"],
        "blocks": [Interval(Integral, 1, None, closed="left")],
        "binarize": [StrOptions({"threshold", "sample"}), None],
    }

    def __init__(
        self,
        n_latents: int = 16,
        *,
        body: str = "conv",
        channels: Sequence[int] = (32, 64),
        blocks: int = 1,
        binarize: str | None = None,
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
        super().__init__(
            n_latents,
            beta=beta,
            likelihood=likelihood,
            prior=prior,
            covariance=covariance,
            hidden=hidden,
            activation=activation,
            gated=gated,
            encoder=encoder,
            decoder=decoder,
            objective=objective,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            validation_fraction=validation_fraction,
            patience=patience,
            average=average,
            device=device,
            precision=precision,
            random_state=random_state,
            verbose=verbose,
        )
        self.body = body
        self.channels = channels
        self.blocks = blocks
        self.binarize = binarize

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def _read(self, X: Any, reset: bool) -> np.ndarray:
        x = door.validated(self, X, reset, ensure_2d=False, allow_nd=True)
        if x.ndim not in (3, 4) or 0 in x.shape:
            raise DataError(
                "images must have the shape (n, height, width) or (n, height, width, channels)",
                f"the shape is {x.shape}",
                "Reshape them, for example X.reshape(-1, 28, 28); for a table use TableVAE.",
            )
        if reset:
            self.image_shape_ = tuple(int(size) for size in x.shape[1:])
            self.pixel_high_ = float(x.max())
        elif x.shape[1:] != self.image_shape_:
            raise DataError(
                f"images must have the shape {self.image_shape_} that the model was fitted on",
                f"theirs is {x.shape[1:]}",
                "Resize or crop them.",
            )
        flat = x.reshape(len(x), -1) if x.ndim == 3 else np.moveaxis(x, -1, 1).reshape(len(x), -1)
        return flat if self.binarize is None else self._binarized(flat)

    def _binarized(self, flat: np.ndarray) -> np.ndarray:
        """Zeros and ones by threshold, or chances in [0, 1] to draw them with."""
        high = 255.0 if self.pixel_high_ > 1 else 1.0
        if flat.min() < 0 or flat.max() > high:
            raise DataError(
                f"binarize={self.binarize!r} needs pixels from 0 to {high:g}",
                f"they range from {flat.min():g} to {flat.max():g}",
                "Rescale the images, or use binarize=None.",
            )
        return (flat > high / 2).astype(np.uint8) if self.binarize == "threshold" else flat / np.float32(high)

    def _rows(self, x: np.ndarray, context: np.ndarray | None) -> Rows:
        rows = rows_of(x, context)
        return BinarizedRows(rows.x, rows.context) if self.binarize == "sample" else rows

    def _scored_rows(self, x: np.ndarray, context: np.ndarray | None) -> Rows:
        return super()._scored_rows(binarized_by_content(x) if self.binarize == "sample" else x, context)

    def _choose(self, facts: choose.Facts) -> choose.Choice:
        if self.binarize is not None:
            return choose.Choice("bernoulli", f"pixels are made 0 or 1 (binarize={self.binarize!r})")
        return choose.choose_image(facts)

    def _write(self, values: Tensor, like: Any = None) -> np.ndarray:
        array = values.numpy()
        if len(self.image_shape_) == 2:
            return array.reshape(-1, *self.image_shape_)
        height, width, channels = self.image_shape_
        return np.moveaxis(array.reshape(-1, channels, height, width), 1, -1)

    def _bodies(self, context: int) -> Callable[[int, int], tuple[nn.Module, nn.Module]]:
        if self.body == "mlp" or self.encoder is not None or self.decoder is not None:
            return super()._bodies(context)
        shape = self.image_shape_ if len(self.image_shape_) == 3 else (*self.image_shape_, 1)
        shape = (shape[2], shape[0], shape[1])
        channels, hidden = check_widths("channels", self.channels), check_widths("hidden", self.hidden)
        blocks = self.blocks if self.body == "residual" else 0
        width = hidden[0] if hidden else 256
        pixels = math.prod(shape)

        def make(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
            per_pixel = (inputs // pixels * shape[0], *shape[1:])
            return (
                ImageEncoder(per_pixel, channels, blocks, width, self.activation, context),
                ImageDecoder(
                    self.n_latents, shape, channels, blocks, width, outputs // pixels, self.activation, context
                ),
            )

        return make


def binarized_by_content(chances: np.ndarray) -> np.ndarray:
    """Zeros and ones drawn with the given chances, each image's draw fixed by its own content."""
    drawn = np.empty(chances.shape, np.uint8)
    for start in range(0, len(chances), 1024):
        part = chances[start : start + 1024]
        noise = normal_by_row(part, 1, part.shape[1])[0]
        drawn[start : start + 1024] = ndtr(noise) < part
    return drawn


def is_anndata(X: Any) -> bool:
    """Whether X is an AnnData, without importing the package."""
    return type(X).__name__ == "AnnData" and hasattr(X, "obsm")


def member(mapping: Any, key: str, what: str) -> Any:
    """mapping[key], or an error that lists the keys."""
    if key not in mapping:
        raise DataError(
            f"{what} must name a member of the AnnData",
            f"{key!r} is not there",
            f"Known are {', '.join(map(str, mapping))}.",
        )
    return mapping[key]
