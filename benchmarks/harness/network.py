"""The VAE that every competitor trains, in plain NumPy: its layers, its start and the score that judges it.

Encoder 784-512-512-32 (16 means, then 16 log-variances), decoder 16-512-512-784 (logits), ReLU between.
Weights travel as a flat dict: `encoder.0.weight` of shape (outputs, inputs), `encoder.0.bias`, ...
"""

import numpy as np

LATENT = 16
LAYERS = {
    "encoder": ((784, 512), (512, 512), (512, 2 * LATENT)),
    "decoder": ((LATENT, 512), (512, 512), (512, 784)),
}
LEARNING_RATE = 1e-3
Weights = dict[str, np.ndarray]


def initial_weights(seed: int) -> Weights:
    """Weights and biases uniform in +-1/sqrt(inputs), which is what torch.nn.Linear starts from."""
    random = np.random.default_rng(seed)
    weights = {}
    for part, layers in LAYERS.items():
        for number, (inputs, outputs) in enumerate(layers):
            bound = inputs**-0.5
            weights[f"{part}.{number}.weight"] = random.uniform(-bound, bound, (outputs, inputs))
            weights[f"{part}.{number}.bias"] = random.uniform(-bound, bound, outputs)
    return {name: array.astype(np.float32) for name, array in weights.items()}


def check_shapes(weights: Weights) -> None:
    """Raise ValueError unless `weights` has exactly the arrays of the common network."""
    expected = {name: array.shape for name, array in initial_weights(0).items()}
    found = {name: array.shape for name, array in weights.items()}
    if found != expected:
        raise ValueError(f"expected weights of shapes {expected}, but the competitor gave {found}")


def negative_elbo(weights: Weights, rows: np.ndarray, noise: np.ndarray) -> float:
    """Mean negative ELBO in nats per row at beta 1, with one posterior draw per row made from `noise`."""
    x = rows.astype(np.float32)
    mean, log_variance = np.split(_mlp(weights, "encoder", x), 2, axis=1)
    logits = _mlp(weights, "decoder", mean + np.exp(log_variance / 2) * noise)
    distortion = np.logaddexp(0, logits, dtype=np.float64) - x * logits
    rate = 0.5 * (np.square(mean) + np.exp(log_variance) - 1 - log_variance)
    return float(distortion.sum(axis=1).mean() + rate.sum(axis=1, dtype=np.float64).mean())


def _mlp(weights: Weights, part: str, x: np.ndarray) -> np.ndarray:
    """The output of one half of the network, ReLU after every layer but the last."""
    for number in range(len(LAYERS[part])):
        x = np.maximum(x, 0) if number else x
        x = x @ weights[f"{part}.{number}.weight"].T + weights[f"{part}.{number}.bias"]
    return x
