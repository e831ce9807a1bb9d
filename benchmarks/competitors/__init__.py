"""Who takes part in the speed benchmark: one module each, with `train(job, watch) -> weights`.

`train` loads `job.rows()`, starts from `job.start()`, shuffles every epoch, calls `watch.mark()` once when
training starts and once at the end of each epoch, and gives back its weights in the layout of `job.start()`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Competitor:
    """How to run one competitor; those with requirements run in the peers' own environment."""

    module: str
    distribution: str
    requirements: tuple[str, ...] = ()
    without_dependencies: tuple[str, ...] = ()

    @property
    def is_peer(self) -> bool:
        """Whether it needs the peers' environment instead of the interpreter of this benchmark."""
        return bool(self.requirements)


COMPETITORS = {
    "elbowroom": Competitor("with_elbowroom", "elbowroom"),
    "loop": Competitor("loop", "torch"),
    "pythae": Competitor(
        "with_pythae",
        "pythae",
        requirements=("cloudpickle", "imageio", "numpy", "pydantic", "scikit-learn", "scipy", "tqdm"),
        without_dependencies=("pythae==0.1.2",),
    ),
    "lightning": Competitor("with_lightning", "lightning", requirements=("lightning==2.6.6",)),
    "jax": Competitor("with_jax", "jax", requirements=("jax==0.10.2", "jaxlib==0.10.2", "optax==0.2.8")),
}
