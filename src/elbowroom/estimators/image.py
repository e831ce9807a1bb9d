"""`ImageVAE`: images, of pixels in [0, 1] or 0..255."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from elbowroom.data import images, validation
from elbowroom.data.dataset import BinarizedRows, Rows, rows_of
from elbowroom.errors import DataError, ParameterError
from elbowroom.estimators.base import BaseVAE
from elbowroom.likelihoods import auto
from elbowroom.nn.conv import ImageDecoder, ImageEncoder
from elbowroom.nn.layers import check_widths
from elbowroom.utils.constraints import Interval, StrOptions


@dataclass(eq=False, repr=False, match_args=False)
class ImageVAE(BaseVAE):
    """A variational autoencoder for images: arrays or tensors (n, h, w), (n, h, w, c) or (n, c, h, w).

    Pixels are 8-bit, from 0 to 1, or only black and white; later images must have the same scale as those in `fit`
    (docs/likelihoods.md).

    Parameters are those of `TableVAE`, and these.

    Parameters
    ----------
    layout : str
        "channels_last" for (n, h, w, c), "channels_first" for (n, c, h, w) as in PyTorch, or "auto" to infer it from
        the shape. The model's images have the layout of those in `fit`.
    body : str
        "conv", "residual" (with `blocks` residual blocks per stage) or "mlp" (with `hidden` layers).
    channels : sequence of int
        Channels of the stages of a convolutional body; each halves height and width.
    blocks : int
        Residual blocks in every stage of a residual body.
    binarize : str or None
        None; "threshold" makes pixels 1 above half of the range; "sample" draws them anew in every epoch with the
        intensity as the probability, and once, determined by the image's content, in scores (dynamic binarisation).
    """

    n_latents: int = 16
    _: KW_ONLY
    layout: str = "auto"
    body: str = "conv"
    channels: Sequence[int] = (32, 64)
    blocks: int = 1
    binarize: str | None = None

    _scored_in: ClassVar[torch.dtype] = torch.float32  # float64 convolutions are slow in torch
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
        x = validation.validated(self, X, reset, ensure_2d=False, allow_nd=True)
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
        """Learn layout, shape and scale of the images in `fit`."""
        self.layout_ = images.layout_of(x.shape, self.layout)
        self.image_shape_ = tuple(int(size) for size in images.channels_last(x, self.layout_).shape[1:])
        self.pixels_, self.pixel_range_ = images.pixels_of(x)
        if self.pixels_ == "binary" and (self.binarize is not None or self.likelihood not in ("auto", "bernoulli")):
            self.pixels_ = "whole"

    def _binarized(self, flat: np.ndarray) -> np.ndarray:
        """Zeros and ones by threshold, or probabilities in [0, 1] to draw them with."""
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

    def _choose(self, facts: auto.Facts) -> auto.Choice:
        if self.binarize is not None:
            return auto.Choice("bernoulli", f"pixels are made 0 or 1 (binarize={self.binarize!r})")
        if self._recoded:
            black, white = self.pixel_range_
            return auto.Choice("bernoulli", f"every pixel is {black:g} or {white:g}")
        return auto.choose_image(facts)

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
        """The axis of the channels; models of earlier versions have them last."""
        return getattr(self, "layout_", "channels_last")

    @property
    def _pixels(self) -> images.Pixels:
        return getattr(self, "pixels_", "real")

    @property
    def _recoded(self) -> bool:
        """Whether the model uses zeros and ones for other values of black and white pixels."""
        return self._pixels == "binary" and self.pixel_range_ != (0, 1)

    @property
    def _black_and_white(self) -> tuple[float, float]:
        """The values of black and white pixels in the model's images."""
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
