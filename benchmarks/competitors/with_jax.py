"""JAX with optax: a whole epoch is one compiled function around `lax.scan`; compiling is not timed."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from harness.job import Job, Stopwatch
from harness.network import LATENT, LAYERS, LEARNING_RATE, Weights

ADAM = optax.adam(LEARNING_RATE)


def mlp(weights: dict, part: str, x: jax.Array) -> jax.Array:
    """The output of one half of the network; weights are (inputs, outputs) here."""
    for number in range(len(LAYERS[part])):
        x = jax.nn.relu(x) if number else x
        x = x @ weights[f"{part}.{number}.weight"] + weights[f"{part}.{number}.bias"]
    return x


def loss(weights: dict, x: jax.Array, key: jax.Array) -> jax.Array:
    """The mean negative ELBO of a batch."""
    mean, log_variance = jnp.split(mlp(weights, "encoder", x), 2, axis=1)
    z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, (len(x), LATENT))
    distortion = optax.sigmoid_binary_cross_entropy(mlp(weights, "decoder", z), x).sum()
    rate = -0.5 * jnp.sum(1 + log_variance - mean**2 - jnp.exp(log_variance))
    return (distortion + rate) / len(x)


def epoch(state: tuple, rows: jax.Array, batch: int) -> tuple:
    """One pass over the shuffled rows: a scan over the full batches, then the last small one."""

    def step(state, index):
        weights, moments, key = state
        key, noise = jax.random.split(key)
        gradient = jax.grad(loss)(weights, rows[index], noise)
        updates, moments = ADAM.update(gradient, moments)
        return (optax.apply_updates(weights, updates), moments, key), None

    weights, moments, key = state
    key, shuffle = jax.random.split(key)
    order = jax.random.permutation(shuffle, len(rows))
    full = len(rows) // batch * batch
    state, _ = jax.lax.scan(step, (weights, moments, key), order[:full].reshape(-1, batch))
    return step(state, order[full:])[0] if full < len(rows) else state


def transposed(weights: dict) -> dict:
    """The weights with every matrix turned from (outputs, inputs) to (inputs, outputs), or back."""
    return {name: array.T for name, array in weights.items()}


def train(job: Job, watch: Stopwatch) -> Weights:
    """Compile the epoch ahead of time, then run it."""
    rows = jnp.asarray(job.rows(), dtype=jnp.float32)
    weights = jax.tree.map(jnp.asarray, transposed(job.start()))
    state = weights, ADAM.init(weights), jax.random.key(job.seed)
    begin = time.perf_counter()
    compiled = jax.jit(epoch, static_argnums=2, donate_argnums=0).lower(state, rows, job.batch).compile()
    watch.note = f"compiling, {time.perf_counter() - begin:.1f} s, not counted"
    watch.mark()
    for _ in range(job.epochs):
        state = jax.block_until_ready(compiled(state, rows))
        watch.mark()
    return jax.tree.map(np.asarray, transposed(state[0]))
