"""The common network as torch modules, its loss, and the way to and from the benchmark's weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.network import LAYERS, Weights


def build(weights: Weights, part: str) -> nn.Sequential:
    """The encoder or the decoder as a torch module that starts from `weights`."""
    modules = []
    for number, (inputs, outputs) in enumerate(LAYERS[part]):
        modules += [nn.Linear(inputs, outputs), nn.ReLU()]
        modules[-2].weight.data.copy_(torch.from_numpy(weights[f"{part}.{number}.weight"]))
        modules[-2].bias.data.copy_(torch.from_numpy(weights[f"{part}.{number}.bias"]))
    return nn.Sequential(*modules[:-1])


def weights_of(encoder: nn.Module, decoder: nn.Module) -> Weights:
    """The weights of both halves, taken from their linear layers in order."""
    return {
        f"{part}.{number}.{name}": parameter.detach().numpy()
        for part, module in (("encoder", encoder), ("decoder", decoder))
        for number, layer in enumerate(m for m in module.modules() if isinstance(m, nn.Linear))
        for name, parameter in layer.named_parameters()
    }


def loss(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """The mean negative ELBO of a batch, as a competent user writes it by hand."""
    mean, log_variance = encoder(x).chunk(2, dim=1)
    z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    distortion = F.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
    rate = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
    return (distortion + rate) / len(x)
