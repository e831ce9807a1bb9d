"""p(x|z) over rows, one distribution per kind of data: what a likelihood returns.

They follow the interface of `torch.distributions` (`log_prob`, `sample`, `mean`). Every log-probability is normalised,
in nats, and summed over the features of the row. Two things differ: the generator is an argument, and a
log-probability has two terms: `log_kernel`, which depends on the parameters, and `log_base`, which depends on the row
alone, so that training computes it once for the data.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from elbowroom.gaussians import HALF_LOG_2PI, normal

SHARP, NEAR = 2.0, 40  # scale of a logistic below which its levels are summed one by one, so many to each side
MANY = 64  # a count from which on the terms of its log-probability are hundreds of nats that nearly cancel
MAX_COUNT = 1e12  # beyond, a Poisson is narrower than the rounding of its float32 parameter


class RowDistribution(ABC):
    """p(x|z) over rows: parameters (..., D), data (n, D) in any dtype, one log-probability a row."""

    def log_kernel(self, x: Tensor) -> Tensor:
        """The terms of log p(x|z) that depend on the parameters, in nats, (...,)."""
        return self.kernel_cells(x).sum(-1)

    def log_base(self, x: Tensor) -> Tensor:
        """The terms of log p(x|z) that depend on x alone, in nats, (n,)."""
        return self.base_cells(x).sum(-1)

    def kernel_cells(self, x: Tensor) -> Tensor:
        """`log_kernel` cell by cell, (..., D), where the features are independent given z."""
        raise NotImplementedError(f"{type(self).__name__} has no log-probability of single cells")

    def base_cells(self, x: Tensor) -> Tensor:
        """`log_base` cell by cell, (n, D)."""
        return torch.zeros((), device=x.device)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|z) of every row, in nats, (...,)."""
        return self.log_kernel(x) + self.log_base(x)

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """E[x|z], (..., D)."""

    @abstractmethod
    def sample(self, generator: Generator | None = None) -> Tensor:
        """One draw of x for every z, (..., D)."""


class Bernoulli(RowDistribution):
    """Features that are 0 or 1."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def log_kernel(self, x: Tensor) -> Tensor:
        return binomial_kernel(self.logits, x, 1)

    def kernel_cells(self, x: Tensor) -> Tensor:
        return x.to(self.logits.dtype) * self.logits - F.softplus(self.logits)

    @property
    def mean(self) -> Tensor:
        return self.logits.sigmoid()

    def sample(self, generator: Generator | None = None) -> Tensor:
        return torch.bernoulli(self.mean, generator=generator)


class Binomial(RowDistribution):
    """Features that count successes out of `total` trials."""

    def __init__(self, logits: Tensor, total: int) -> None:
        self.logits, self.total = logits, total

    def log_kernel(self, x: Tensor) -> Tensor:
        return binomial_kernel(self.logits, x, self.total)

    def kernel_cells(self, x: Tensor) -> Tensor:
        return x.to(self.logits.dtype) * self.logits - self.total * F.softplus(self.logits)

    def base_cells(self, x: Tensor) -> Tensor:
        x = x.double()
        return math.lgamma(self.total + 1) - (x + 1).lgamma() - (self.total - x + 1).lgamma()

    @property
    def mean(self) -> Tensor:
        return self.total * self.logits.sigmoid()

    def sample(self, generator: Generator | None = None) -> Tensor:
        return torch.binomial(torch.full_like(self.logits, self.total), self.logits.sigmoid(), generator=generator)


class Gaussian(RowDistribution):
    """Real features: x = loc + scale * (mean + std * noise), where loc and scale are fixed units of the data."""

    def __init__(self, mean: Tensor, log_std: Tensor, loc: Tensor, scale: Tensor) -> None:
        self.location, self.log_std, self.loc, self.scale = mean, log_std, loc, scale

    def kernel_cells(self, x: Tensor) -> Tensor:
        residual = (in_units(x, self.loc, self.scale, self.location) - self.location) * (-self.log_std).exp()
        return -(0.5 * residual.square() + self.log_std)

    def base_cells(self, x: Tensor) -> Tensor:
        return -(self.scale.log() + HALF_LOG_2PI).expand(x.shape)

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * self.location

    def sample(self, generator: Generator | None = None) -> Tensor:
        noise = normal(self.location.shape, generator, self.location)
        return self.loc + self.scale * (self.location + self.log_std.exp() * noise)


class StudentT(RowDistribution):
    """Real features with heavy tails: a Gaussian whose noise is Student-t with `df` degrees of freedom (> 1)."""

    def __init__(self, mean: Tensor, log_std: Tensor, df: Tensor, loc: Tensor, scale: Tensor) -> None:
        self.location, self.log_std, self.df, self.loc, self.scale = mean, log_std, df, loc, scale

    def kernel_cells(self, x: Tensor) -> Tensor:
        residual = (in_units(x, self.loc, self.scale, self.location) - self.location) * (-self.log_std).exp()
        half = 0.5 * (self.df + 1)
        norm = half.lgamma() - (0.5 * self.df).lgamma() - 0.5 * (math.pi * self.df).log() - self.log_std
        # half log(1 + r^2 / df), without the square, which overflows float32 at an outlier of 1e20
        return norm - 2 * half * torch.hypot(torch.ones_like(residual), residual / self.df.sqrt()).log()

    def base_cells(self, x: Tensor) -> Tensor:
        return -self.scale.log().expand(x.shape)

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * self.location

    def sample(self, generator: Generator | None = None) -> Tensor:
        df = self.df.expand(self.location.shape)
        chi2 = 2 * gamma(0.5 * df, generator)
        noise = normal(self.location.shape, generator, self.location) * (df / chi2).sqrt()
        return self.loc + self.scale * (self.location + self.log_std.exp() * noise)


class Poisson(RowDistribution):
    """Counts with the mean exp(log_rate)."""

    def __init__(self, log_rate: Tensor) -> None:
        self.log_rate = log_rate

    def kernel_cells(self, x: Tensor) -> Tensor:
        return x.to(self.log_rate.dtype) * self.log_rate - self.log_rate.exp()

    def base_cells(self, x: Tensor) -> Tensor:
        return -log_factorial(x)

    @property
    def mean(self) -> Tensor:
        return self.log_rate.exp()

    def sample(self, generator: Generator | None = None) -> Tensor:
        return torch.poisson(self.mean, generator=generator)


class NegativeBinomial(RowDistribution):
    """Counts with the mean m = exp(log_rate) and the variance m + m^2 / r, r = exp(log_dispersion)."""

    def __init__(self, log_rate: Tensor, log_dispersion: Tensor) -> None:
        self.log_rate, self.log_dispersion = log_rate, log_dispersion

    def log_kernel(self, x: Tensor) -> Tensor:
        return self._at_zero().sum(-1) + self._at_counts(x)

    def kernel_cells(self, x: Tensor) -> Tensor:
        x = x.double()
        excess, r = (self.log_rate - self.log_dispersion).double(), self.log_dispersion.double().exp()
        return self._at_zero() + _beyond_zero(x, excess, r, r.lgamma()).to(self.log_rate.dtype)

    def _at_zero(self) -> Tensor:
        """log p(0|z), which the log-probability of every count starts from."""
        return -self.log_dispersion.exp() * F.softplus(self.log_rate - self.log_dispersion)

    def _at_counts(self, x: Tensor) -> Tensor:
        """What counts above zero add to the kernel of every row, (...,): computed at these alone."""
        few, many = (x > 0) & (x < MANY), x >= MANY
        precise = self.log_rate.dtype if x.device.type == "mps" else torch.float64  # which MPS does not have
        return self._at(few, x, self.log_rate.dtype) + self._at(many, x, precise)

    def _at(self, mask: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The same of the counts in a mask (n, D), in a precision."""
        row, column = mask.nonzero(as_tuple=True)
        at, log_r = row * x.shape[1] + column, self.log_dispersion.to(dtype)
        if log_r.dim() > 1:  # one dispersion for each row
            log_r, column = log_r.expand(x.shape).flatten(), at
        r = log_r.exp()
        log_r, r, lgamma_r = (part.index_select(0, column) for part in (log_r, r, r.lgamma()))
        log_rate = self.log_rate.expand(*self.log_rate.shape[:-2], *x.shape).flatten(-2)
        counts, excess = x.flatten()[at].to(dtype), log_rate.index_select(-1, at).to(dtype) - log_r
        terms = _beyond_zero(counts, excess, r, lgamma_r).to(self.log_rate.dtype)
        return terms.new_zeros(*terms.shape[:-1], len(x)).index_add(-1, row, terms)

    def base_cells(self, x: Tensor) -> Tensor:
        x = x.double()
        return torch.xlogy(x, x) - x - log_factorial(x)

    @property
    def mean(self) -> Tensor:
        return self.log_rate.exp()

    def sample(self, generator: Generator | None = None) -> Tensor:
        dispersion = self.log_dispersion.exp().expand(self.log_rate.shape)
        rate = gamma(dispersion, generator) * (self.log_rate - self.log_dispersion).exp()
        return torch.poisson(rate, generator=generator)


class LargeCounts(RowDistribution):
    """A distribution of counts so large that the terms of its log-probability cancel to noise in float32.

    All of them are in the kernel, made in float64; their small sum is in the dtype of the parameters.
    """

    def __init__(self, kind: Callable[..., RowDistribution], *parameters: Tensor) -> None:
        self.like = parameters[0]
        self.p = kind(*map(self._widened, parameters))

    def log_kernel(self, x: Tensor) -> Tensor:
        return self._narrowed(self.p.log_prob(self._widened(x)))

    @property
    def mean(self) -> Tensor:
        return self._narrowed(self.p.mean)

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self._narrowed(self.p.sample(generator))

    def _widened(self, values: Tensor) -> Tensor:
        return (values.cpu() if self.like.device.type == "mps" else values).double()  # MPS has no float64

    def _narrowed(self, values: Tensor) -> Tensor:
        return values.to(self.like.dtype).to(self.like.device)


class Multinomial(RowDistribution):
    """Counts of `total` independent draws among the D features."""

    def __init__(self, logits: Tensor, total: Tensor) -> None:
        self.log_probs, self.total = logits.log_softmax(-1), total

    def log_kernel(self, x: Tensor) -> Tensor:
        return (x.to(self.log_probs.dtype) * self.log_probs).sum(-1)

    def log_base(self, x: Tensor) -> Tensor:
        x = x.double()
        return (x.sum(-1) + 1).lgamma() - log_factorial(x).sum(-1)

    @property
    def mean(self) -> Tensor:
        return self.total * self.log_probs.exp()

    def sample(self, generator: Generator | None = None) -> Tensor:
        probs = self.log_probs.exp()
        left = self.total.expand(*probs.shape[:-1], 1)[..., 0].round()
        rest = probs.flip(-1).cumsum(-1).flip(-1).clamp_min(torch.finfo(probs.dtype).tiny)
        share = (probs / rest).clamp(0, 1)
        drawn = torch.zeros_like(probs)
        for column in range(probs.shape[-1]):
            drawn[..., column] = torch.binomial(left, share[..., column].contiguous(), generator=generator)
            left -= drawn[..., column]
        return drawn


class Categorical(RowDistribution):
    """Features that are one of `classes` codes 0, 1, ...; logits (..., D, classes).

    The last code may stand for all that was `unseen` in training: it has a probability, and is never drawn.
    """

    def __init__(self, logits: Tensor, unseen: bool = False) -> None:
        self.log_probs, self.unseen = logits.log_softmax(-1), unseen

    @property
    def _drawable(self) -> Tensor:
        return self.log_probs[..., :-1] if self.unseen else self.log_probs

    def kernel_cells(self, x: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(self.log_probs.shape[:-1], x.shape)
        codes = x.long().expand(shape).unsqueeze(-1)
        return self.log_probs.expand(*shape, -1).gather(-1, codes)[..., 0]

    @property
    def mean(self) -> Tensor:
        """The most likely code: codes have no order, so their average means nothing."""
        return self._drawable.argmax(-1).to(self.log_probs.dtype)

    def sample(self, generator: Generator | None = None) -> Tensor:
        flat = self._drawable.exp().flatten(0, -2)
        codes = torch.multinomial(flat, 1, generator=generator).view(self.log_probs.shape[:-1])
        return codes.to(self.log_probs.dtype)


class DiscretizedLogistic(RowDistribution):
    """Whole numbers 0..levels-1: a logistic density integrated over unit bins, tails in the end bins (Kingma 2016)."""

    def __init__(self, mean: Tensor, log_scale: Tensor, levels: int) -> None:
        self.location, self.log_scale, self.levels = mean, log_scale, levels

    def kernel_cells(self, x: Tensor) -> Tensor:
        x = x.to(self.location.dtype)
        precision = (-self.log_scale).exp()
        below = F.logsigmoid((x + 0.5 - self.location) * precision)
        above = F.logsigmoid((self.location - x + 0.5) * precision)
        # log(S(b) - S(a)) = log S(b) + log S(-a) + log(1 - exp(a - b)), exact for all a < b
        inside = below + above + (-torch.expm1(-precision)).log()
        return torch.where(x <= 0, below, torch.where(x >= self.levels - 1, above, inside))

    @property
    def mean(self) -> Tensor:
        """E[x|z], (..., D): the sum of P(x > k) = sigmoid((location - k - 1/2) / scale) over k = 0..levels-2."""
        location, log_scale = torch.broadcast_tensors(self.location.double(), self.log_scale.double())
        scale, mean = log_scale.exp(), torch.empty_like(location)
        sharp = scale < SHARP
        mean[~sharp] = self._smooth_sum(location[~sharp], scale[~sharp])
        mean[sharp] = self._near_sum(location[sharp], scale[sharp])
        return mean.to(self.location.dtype)

    def _smooth_sum(self, location: Tensor, scale: Tensor) -> Tensor:
        """By the midpoint rule, with two terms of Euler and Maclaurin at the ends."""
        low, high = location / scale, (location - self.levels + 1) / scale
        found = scale * (F.softplus(low) - F.softplus(high))
        for at, sign in ((low, -1.0), (high, 1.0)):
            slope = at.sigmoid() * (-at).sigmoid()
            bend = slope * (1 - 6 * slope)
            found += sign * (slope / (24 * scale) - bend * 7 / (5760 * scale**3))
        return found

    def _near_sum(self, location: Tensor, scale: Tensor) -> Tensor:
        """Term by term near the location; all below are one, and all above are zero."""
        first = location.clamp(0, self.levels - 1).floor() - NEAR
        found = first.clamp_min(0)
        for j in range(2 * NEAR + 1):
            k = first + j
            found += ((location - k - 0.5) / scale).sigmoid() * ((k >= 0) & (k < self.levels - 1))
        return found

    def sample(self, generator: Generator | None = None) -> Tensor:
        u = uniform(self.location, generator)
        return (self.location + self.log_scale.exp() * u.logit()).round().clamp(0, self.levels - 1)


class ContinuousBernoulli(RowDistribution):
    """Features in [0, 1] with density proportional to exp(logit * x) (Loaiza-Ganem & Cunningham 2019)."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def kernel_cells(self, x: Tensor) -> Tensor:
        """The density is l e^(l x) / (e^l - 1): for l > 0 it is counted from its end, so that nothing large cancels."""
        x, size, small = x.to(self.logits.dtype), *self._magnitude()
        far = torch.where(self.logits > 0, x - 1, x) * self.logits - (-torch.expm1(-size) / size).log()
        square = self.logits.square()
        near = (x - 0.5) * self.logits - square * (1 / 24 - square * (1 / 2880 - square / 181440))
        return torch.where(small, near, far)

    def _magnitude(self) -> tuple[Tensor, Tensor]:
        """|l|, and where it is small enough for a power series; there it is 1, so that no gradient is infinite."""
        small = self.logits.abs() < 0.3
        return self.logits.abs().where(~small, 1.0), small

    @property
    def mean(self) -> Tensor:
        size, small = self._magnitude()
        upper = -1 / torch.expm1(-size) - 1 / size
        far = torch.where(self.logits > 0, upper, 1 - upper)
        square = self.logits.square()
        return torch.where(small, 0.5 + self.logits * (1 / 12 - square * (1 / 720 - square / 30240)), far)

    def sample(self, generator: Generator | None = None) -> Tensor:
        size = self.logits.abs().clamp_min(1e-4)
        u = uniform(self.logits, generator)
        upper = 1 + torch.log1p((1 - u) * torch.expm1(-size)) / size
        return torch.where(self.logits > 0, upper, 1 - upper).clamp(0, 1)


class _BinomialKernel(torch.autograd.Function):
    """x * l - total * log(1 + e^l), with a backward pass of one subtraction: the sigmoid comes with the forward."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, logits: Tensor, x: Tensor, total: int) -> Tensor:
        ctx.save_for_backward(logits, x)
        ctx.total = total  # type: ignore[attr-defined]
        return torch.addcmul(F.softplus(logits).mul_(-total), logits, x).sum(-1)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, x = ctx.saved_tensors  # type: ignore[attr-defined]
        slope = torch.sub(x, logits.sigmoid(), alpha=ctx.total)  # type: ignore[attr-defined]
        return slope.mul_(grad.unsqueeze(-1)), None, None


def binomial_kernel(logits: Tensor, x: Tensor, total: int) -> Tensor:
    """Sum over features of x * l - total * log(1 + e^l): (...,)."""
    return _BinomialKernel.apply(logits, x.to(logits.dtype), total)


def _beyond_zero(x: Tensor, excess: Tensor, r: Tensor, lgamma_r: Tensor) -> Tensor:
    """log p(x|z) - log p(0|z) of a negative binomial but for its base, which makes all terms small; zero where x is."""
    # log sigmoid(excess) is excess - softplus(excess), but not in the last digits, which large counts multiply
    return x * (F.logsigmoid(excess) + 1) - torch.xlogy(x, x) + (x + r).lgamma() - lgamma_r


def in_units(x: Tensor, loc: Tensor, scale: Tensor, like: Tensor) -> Tensor:
    """(x - loc) / scale, subtracted in the precision of x (a time stamp needs it), then in the model's dtype."""
    if x.is_floating_point():
        loc, scale = loc.to(x.dtype), scale.to(x.dtype)
    return ((x - loc) / scale).to(like.dtype)


def log_factorial(x: Tensor) -> Tensor:
    """log x!, in float64."""
    return (x.double() + 1).lgamma()


def uniform(like: Tensor, generator: Generator | None) -> Tensor:
    """Uniform noise in the open interval (0, 1), with the shape of `like`."""
    tiny = torch.finfo(like.dtype).eps
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device).clamp(tiny, 1 - tiny)


def gamma(concentration: Tensor, generator: Generator | None) -> Tensor:
    """Gamma noise with unit rate."""
    return torch._standard_gamma(concentration, generator=generator).clamp_min(torch.finfo(concentration.dtype).tiny)
