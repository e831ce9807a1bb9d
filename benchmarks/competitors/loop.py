"""The bare PyTorch loop: tensors in memory, default Adam, what a competent user writes."""

import torch

from competitors.torch_network import build, loss, weights_of
from harness.job import Job, Stopwatch
from harness.network import LEARNING_RATE, Weights


def train(job: Job, watch: Stopwatch) -> Weights:
    """Train with shuffled slices of one float32 tensor."""
    torch.manual_seed(job.seed)
    x = torch.from_numpy(job.rows()).float()
    encoder, decoder = build(job.start(), "encoder"), build(job.start(), "decoder")
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=LEARNING_RATE)
    watch.mark()
    for _ in range(job.epochs):
        order = torch.randperm(len(x))
        for first in range(0, len(x), job.batch):
            optimizer.zero_grad()
            loss(encoder, decoder, x[order[first : first + job.batch]]).backward()
            optimizer.step()
        watch.mark()
    return weights_of(encoder, decoder)
