"""Images and a range of beta: one network for the handwritten digits of scikit-learn, at every beta from 0.01 to 10."""

import numpy as np
from matplotlib.ticker import FormatStrFormatter

from tutorial import BLUE, GREY, INK, ORANGE, Tutorial, figure_of, mosaic

tutorial = Tutorial("digits")

# [fit]
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from elbowroom import ImageVAE

images = load_digits().images.astype(np.uint8)  # 1,797 of 8 x 8 pixels, 0 to 16
train, rest = train_test_split(images, test_size=597, random_state=0)
valid, test = rest[:300], rest[300:]
epochs = 5 if tutorial.quick else 400
model = ImageVAE(16, body="mlp", beta="0.01..10", epochs=epochs, random_state=0)
model.fit(train)
# [end of fit]
tutorial.say(f"likelihood: {model.likelihood_}, since {model.likelihood_reason_}")

# [curve]
curve = model.curve(valid)
# [end of curve]
tutorial.say(curve)

# [pick]
best = model.pick(valid, "elbo")  # for density and anomalies
small = model.pick(valid, f"rate:nats={20 * np.log(2):.3f}")  # for a code of 20 bits
scores = {beta: model.at(beta).score(test) for beta in (best, small)}
# [end of pick]
tutorial.say(f"beta with the highest ELBO: {best:.3g}")
tutorial.say(f"beta with a rate of 20 bits: {small:.3g}")
for beta, score in scores.items():
    tutorial.say(
        f"ELBO of the test images with the model at beta = {beta:.3g}: {score:.1f} nats per image"
    )

# [pictures]
betas = [0.01, 0.1, 1.0, 10.0]
at = {beta: model.at(beta) for beta in betas}
made = {beta: at[beta].reconstruct(test[:10]) for beta in betas}
samples = {beta: at[beta].sample(25, mean=True, random_state=1) for beta in betas}
# [end of pictures]

figure, (axes,) = figure_of(7.2, 2.9)
axes.imshow(
    mosaic(np.concatenate([test[:10], *made.values()]), 10),
    cmap="gray_r",
    vmin=0,
    vmax=16,
)
axes.set_xticks([])
names = ["test images"]
for beta in betas:
    distortion, rate = (each.mean() for each in at[beta].distortion_and_rate(test))
    names.append(f"beta = {beta:g}\nrate {rate:.0f}, distortion {distortion:.0f} nats")
axes.set_yticks([9 * i + 3.5 for i in range(5)], names, color=INK)
axes.spines[:].set_visible(False)
tutorial.save(figure, "reconstructions")

figure, panels = figure_of(7.2, 2.1, 4)
for axes, beta in zip(panels, betas, strict=True):
    axes.imshow(mosaic(samples[beta], 5), cmap="gray_r", vmin=0, vmax=16)
    axes.set(xticks=[], yticks=[], title=f"beta = {beta:g}")
    axes.spines[:].set_visible(False)
tutorial.save(figure, "samples")

figure, (left, right) = figure_of(7.2, 3.0, 2)
left.plot(curve.rate, curve.distortion, "-o", color=ORANGE, ms=4)
for i in (0, 4, 8, 10, 12):
    point = (curve.rate[i], curve.distortion[i])
    left.annotate(
        f"{curve.betas[i]:.2g}", point, (4, 5), textcoords="offset points", color=GREY
    )
left.set(
    xlabel="rate, nats per image",
    ylabel="distortion, nats per image",
    title="Validation images, with the betas",
)
left.margins(0.15, 0.12)
right.plot(curve.betas, curve.elbo, "-o", color=BLUE, ms=4)
right.axvline(best, color=GREY, lw=1, ls=":")
right.set(
    xscale="log",
    xlabel="beta",
    ylabel="ELBO, nats per image",
    title="How well each beta models them",
)
right.xaxis.set_major_formatter(FormatStrFormatter("%g"))
for axes in (left, right):
    axes.grid(axis="y")
tutorial.save(figure, "curve")
