"""Lightning's Trainer with a DataLoader over a TensorDataset; logging, checkpoints and bars are off."""

import logging
import warnings

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from competitors.torch_network import build, loss, weights_of
from harness.job import Job, Stopwatch
from harness.network import LEARNING_RATE, Weights


class Module(lightning.LightningModule):
    """The common VAE as a Lightning module that marks its epochs."""

    def __init__(self, weights: Weights, watch: Stopwatch):
        super().__init__()
        self.encoder, self.decoder = build(weights, "encoder"), build(weights, "decoder")
        self.watch = watch

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        """The loss of a batch."""
        return loss(self.encoder, self.decoder, batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam with its default settings."""
        return torch.optim.Adam(self.parameters(), lr=LEARNING_RATE)

    def on_train_start(self) -> None:
        """Mark the start."""
        self.watch.mark()

    def on_train_epoch_end(self) -> None:
        """Mark the end of an epoch."""
        self.watch.mark()


def train(job: Job, watch: Stopwatch) -> Weights:
    """Train through Trainer.fit."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.manual_seed(job.seed)
    rows = TensorDataset(torch.from_numpy(job.rows()).float())
    module = Module(job.start(), watch)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=job.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(rows, batch_size=job.batch, shuffle=True))
    return weights_of(module.encoder, module.decoder)
