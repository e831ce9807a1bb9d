"""Elbowroom itself. This is the only file of the benchmark that knows its API."""

import torch
from torch import Tensor

from harness.job import Job, Stopwatch
from harness.network import LATENT, LAYERS, LEARNING_RATE, Weights


def train(job: Job, watch: Stopwatch) -> Weights:
    """Train the common VAE with elbowroom's own trainer: constant learning rate, beta 1, ReLU, float32.

    Nobody else clips gradients or averages weights, so the limit of the gradient's norm is out of reach here.
    """
    from elbowroom.beta.policies import Constant
    from elbowroom.data.dataset import rows_of
    from elbowroom.training.trainer import Trainer
    from elbowroom.utils.progress import Progress

    class Marks(Progress):
        """Marks the stopwatch where the progress would be shown."""

        def __enter__(self) -> "Marks":
            watch.mark()
            return self

        def epoch(self, done: int, record: dict[str, float]) -> None:
            watch.mark()

    model = build(job.start())
    settings = {"average": False, "clip": 1e9, "schedule": "constant", "seed": job.seed, "device": "cpu"}
    trainer = Trainer(job.epochs, job.batch, LEARNING_RATE, **settings)
    trainer.fit(model, rows_of(job.rows()), Constant(1.0), progress=Marks(job.epochs))
    return {name: (tensor.detach() * scale).numpy() for name, (tensor, scale) in places(model).items()}


def build(start: Weights) -> torch.nn.Module:
    """The common VAE, at the benchmark's start."""
    from elbowroom.latents.posteriors import DiagonalLatent
    from elbowroom.latents.priors import StandardPrior
    from elbowroom.likelihoods.discrete import Bernoulli
    from elbowroom.models.vae import VAE
    from elbowroom.nn.mlp import MLP

    pixels, hidden = LAYERS["encoder"][0][0], [outputs for _, outputs in LAYERS["encoder"][:-1]]
    encoder = MLP(pixels, hidden, activation="relu")
    decoder = MLP(LATENT, hidden[::-1], pixels, activation="relu")
    model = VAE(encoder, DiagonalLatent(hidden[-1], LATENT), StandardPrior(LATENT), decoder, Bernoulli(pixels))
    with torch.no_grad():
        for name, (tensor, scale) in places(model).items():
            tensor.copy_(torch.from_numpy(start[name]) / torch.as_tensor(scale))
    return model


def places(model: torch.nn.Module) -> dict[str, tuple[Tensor, Tensor | float]]:
    """Where each of the benchmark's arrays lives, and the factor between the two.

    The benchmark's last encoder layer gives the log-variance, elbowroom's the log standard deviation; its last
    decoder bias is elbowroom's likelihood's, which starts from the data's marginals where nobody sets it.
    """
    encoder = [layer.inner for layer in model.encoder.layers]
    decoder = [layer.inner for layer in model.decoder.layers]
    scale = torch.ones(2 * LATENT)
    scale[LATENT:] = 2
    found = {}
    for part, layers in (("encoder", encoder), ("decoder", decoder)):
        for number, layer in enumerate(layers):
            found[f"{part}.{number}.weight"] = (layer.weight, 1.0)
            found[f"{part}.{number}.bias"] = (layer.bias, 1.0)
    found["encoder.2.weight"] = (model.latent.head.weight, scale[:, None])
    found["encoder.2.bias"] = (model.latent.head.bias, scale)
    found["decoder.2.weight"] = (model.decoder.last.weight, 1.0)
    found["decoder.2.bias"] = (model.likelihood.bias, 1.0)
    return found
