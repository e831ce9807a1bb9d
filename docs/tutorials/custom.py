"""Your own network and your own likelihood: hours of the day, which start again at midnight."""

import numpy as np

from tutorial import BLUE, GREY, LIGHT, ORANGE, Tutorial, figure_of

tutorial = Tutorial("custom")


# [generate]
def days(n: int, random: np.random.Generator) -> np.ndarray:
    """Hours (n, 5) at which n people wake, leave home, eat, come home and sleep."""
    early, late = random.normal(-0.7, 0.5, n), random.normal(1.8, 0.5, n)
    shift = np.where(random.random(n) < 0.6, early, late)[:, None]  # 60 % rise early
    usual = np.array([7.0, 8.0, 12.5, 17.5, 23.0]) + shift * [1.0, 0.8, 0.4, 0.7, 1.1]
    return (usual + random.normal(0, [0.5, 0.5, 0.7, 1.0, 0.5], (n, 5))) % 24


X = days(400 if tutorial.quick else 4000, np.random.default_rng(0))
X = X * np.pi / 12  # angles from 0 to 2 pi
train, test = X[len(X) // 4 :], X[: len(X) // 4]
# [end of generate]
tutorial.say(f"{len(train)} days to train on, {len(test)} to test on")

# [likelihood]
import torch
from torch import Tensor, nn
from torch.distributions import Independent, VonMises


class Angles(nn.Module):
    """A von Mises distribution for each angle, around a direction of the decoder."""

    n_outputs = 15  # of the decoder: a direction and a concentration for 5 angles
    n_inputs = 10  # of the encoder

    def inputs(self, x: Tensor) -> Tensor:
        """Cosines and sines, so that the encoder sees midnight as one place."""
        return torch.cat([x.cos(), x.sin()], -1)

    def forward(self, h: Tensor) -> Independent:
        """Decoder outputs (..., 15) to p(x|z), normalised over the circle."""
        a, b, c = h.chunk(3, -1)
        concentration = nn.functional.softplus(c + 2).clamp(0.05, 500)
        return Independent(VonMises(torch.atan2(b, a + 1e-3), concentration), 1)


# [end of likelihood]


# [network]
class Residual(nn.Module):
    """A network of two residual layers, from rows of one width to rows of another."""

    def __init__(self, inputs: int, outputs: int, width: int = 64) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(width, width)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs) to (n, outputs)."""
        h = self.first(x)
        for layer in self.layers:
            h = h + layer(h)
        return self.last(h)


# [end of network]

# [fit]
from elbowroom import TableVAE

epochs = 3 if tutorial.quick else 100
settings = {"n_latents": 2, "epochs": epochs, "random_state": 0}
torch.manual_seed(0)  # your own layers start from torch's global stream
parts = {"encoder": Residual(10, 64), "decoder": Residual(2, 15)}
circular = TableVAE(likelihood=Angles(), **parts, **settings).fit(train)
straight = TableVAE(likelihood="gaussian", **settings).fit(train)
# [end of fit]
for name, model in (("von Mises", circular), ("Gaussian", straight)):
    evidence = model.log_likelihood(test)
    tutorial.say(
        f"{name}: test log-likelihood {evidence.mean:.2f} +- {evidence.standard_error:.2f} nats per day"
    )
tutorial.say(f"active latents: {circular.diagnosis_.n_active}")

# [use]
made = circular.sample(len(test), random_state=0) % (2 * np.pi)
made = made * 12 / np.pi  # hours again
# [end of use]
straight_made = straight.sample(len(test), random_state=0) * 12 / np.pi
sides = {"data": test * 12 / np.pi, "von Mises": made, "Gaussian": straight_made}
for name, hours in sides.items():
    awake, outside = (
        (hours[:, 4] > 3) & (hours[:, 4] < 21),
        ((hours < 0) | (hours >= 24)).any(1),
    )
    tutorial.say(
        f"{name}: {awake.mean():.1%} sleep between 3:00 and 21:00, {outside.mean():.1%} have an hour outside 0 to 24"
    )

figure, panels = figure_of(7.2, 2.9, 3, sharex=True, sharey=True)
for axes, (name, hours), color in zip(
    panels, sides.items(), (BLUE, ORANGE, GREY), strict=True
):
    axes.scatter(hours[:, 0], hours[:, 4], 5, color=color, alpha=0.5, lw=0)
    axes.axhspan(24, 30, color=LIGHT, lw=0)
    axes.axhspan(-3, 0, color=LIGHT, lw=0)
    axes.set(xlabel="wakes at", title=name, ylim=(-2, 29), xlim=(3, 13))
    axes.set_xticks(
        [4, 6, 8, 10, 12], [f"{h}:00" for h in (4, 6, 8, 10, 12)], fontsize=8.5
    )
    axes.set_yticks([0, 6, 12, 18, 24], [f"{h}:00" for h in (0, 6, 12, 18, 24)])
    axes.grid(axis="y")
panels[0].set_ylabel("sleeps at")
tutorial.save(figure, "days")
