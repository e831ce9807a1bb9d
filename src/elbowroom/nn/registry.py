"""The networks that saved models may name."""

from __future__ import annotations

from elbowroom.nn.conv import ImageDecoder, ImageEncoder
from elbowroom.nn.mlp import MLP

BODIES = {"MLP": MLP, "ImageEncoder": ImageEncoder, "ImageDecoder": ImageDecoder}
