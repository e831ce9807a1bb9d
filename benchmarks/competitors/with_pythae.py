"""pythae with its own BaseTrainer; the progress bar, the log and the checkpoints are off.

pythae 0.1.2 sums the cross-entropy over pixels and the KL over latents, averages over rows, and its VAE has
no beta: that is beta 1. Its decoder must give probabilities, so its loss works behind a sigmoid.
"""

import logging
import os
import tempfile

os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported, so it stands before pythae's import

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback

from competitors.torch_network import build, weights_of
from harness.job import Job, Stopwatch
from harness.network import LATENT, LAYERS, LEARNING_RATE, Weights


class Encoder(BaseEncoder):
    """The common encoder behind pythae's interface."""

    def __init__(self, body: torch.nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> ModelOutput:
        """The posterior's mean and log-variance."""
        mean, log_variance = self.body(x).chunk(2, dim=1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """The common decoder behind pythae's interface."""

    def __init__(self, body: torch.nn.Module):
        super().__init__()
        self.body = body

    def forward(self, z: torch.Tensor) -> ModelOutput:
        """The probability of every pixel."""
        return ModelOutput(reconstruction=torch.sigmoid(self.body(z)))


class Laps(TrainingCallback):
    """Marks the start of training and the end of every epoch."""

    def __init__(self, watch: Stopwatch):
        self.watch = watch

    def on_train_begin(self, training_config, **kwargs):
        """Mark the start."""
        self.watch.mark()

    def on_epoch_end(self, training_config, **kwargs):
        """Mark the end of an epoch."""
        self.watch.mark()


def train(job: Job, watch: Stopwatch) -> Weights:
    """Train through BaseTrainer, whose final model goes to a folder that is thrown away."""
    logging.disable(logging.INFO)
    rows = torch.from_numpy(job.rows()).float()
    config = VAEConfig(input_dim=(LAYERS["encoder"][0][0],), latent_dim=LATENT, reconstruction_loss="bce")
    model = VAE(config, Encoder(build(job.start(), "encoder")), Decoder(build(job.start(), "decoder")))
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=job.epochs,
            per_device_train_batch_size=job.batch,
            learning_rate=LEARNING_RATE,
            seed=job.seed,
            no_cuda=True,
        )
        dataset = BaseDataset(rows, torch.zeros(len(rows)))
        BaseTrainer(model, dataset, training_config=settings, callbacks=[Laps(watch)]).train()
    return weights_of(model.encoder, model.decoder)
