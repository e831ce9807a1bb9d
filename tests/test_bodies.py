"""Networks: shapes, context, gradients; the tests run over the family dict."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from elbowroom.errors import ParameterError
from elbowroom.nn.conv import ImageDecoder, ImageEncoder, halvings
from elbowroom.nn.layers import ACTIVATIONS, check_widths
from elbowroom.nn.mlp import MLP
from elbowroom.nn.registry import BODIES

# Every body in some of its forms: (arguments, width of its input, width of its output).
FORMS: dict[str, list[tuple[dict[str, Any], int, int]]] = {
    "MLP": [
        ({"inputs": 6, "hidden": (8, 5)}, 6, 5),
        ({"inputs": 6, "hidden": (8,), "outputs": 3}, 6, 3),
        ({"inputs": 6, "hidden": (), "outputs": 3}, 6, 3),
        ({"inputs": 6, "hidden": ()}, 6, 6),
        ({"inputs": 6, "hidden": (8, 8), "outputs": 2, "gated": True}, 6, 2),
    ],
    "ImageEncoder": [
        ({"shape": shape, "channels": (4, 6), "blocks": blocks, "width": 7}, shape[0] * shape[1] * shape[2], 7)
        for shape, blocks in product([(1, 8, 8), (3, 7, 5), (2, 1, 1)], [0, 2])
    ],
    "ImageDecoder": [
        (
            {"inputs": 3, "shape": shape, "channels": (4, 6), "blocks": blocks, "width": 7, "outputs": 2},
            3,
            2 * shape[0] * shape[1] * shape[2],
        )
        for shape, blocks in product([(1, 8, 8), (3, 7, 5), (2, 1, 1)], [0, 2])
    ],
}
EACH = [(name, *form) for name, forms in FORMS.items() for form in forms]
each = pytest.mark.parametrize(("name", "options", "inputs", "outputs"), EACH)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moved(body: nn.Module) -> nn.Module:
    """The body with every parameter off its start, so that what starts as the identity shows."""
    with torch.no_grad():
        for i, p in enumerate(body.parameters()):
            p += 0.1 * draw(*p.shape, seed=i)
    return body


def test_every_body_is_tested() -> None:
    assert set(FORMS) == set(BODIES)


@each
def test_shapes_over_any_leading_axes(name: str, options: dict[str, Any], inputs: int, outputs: int) -> None:
    body = BODIES[name](**options)
    for lead in ((5,), (2, 5), (1,), (3, 2, 1)):
        assert body(draw(*lead, inputs), None).shape == (*lead, outputs)
    assert getattr(body, "width", outputs) in (outputs, options.get("width"))


@each
def test_bodies_are_batch_invariant(name: str, options: dict[str, Any], inputs: int, outputs: int) -> None:
    body = moved(BODIES[name](**options, context=2)).double()
    x, context = draw(2, 5, inputs).double(), draw(5, 2, seed=1).double()
    expected = torch.stack(
        [torch.stack([body(x[i, j : j + 1], context[j : j + 1])[0] for j in range(5)]) for i in (0, 1)]
    )
    if name == "ImageEncoder":  # encoders read rows, which have no axis of draws
        x, expected = x[0], expected[0]
    torch.testing.assert_close(body(x, context), expected)


@each
def test_gradients_reach_every_parameter(name: str, options: dict[str, Any], inputs: int, outputs: int) -> None:
    for context in (0, 2):
        body = moved(BODIES[name](**options, context=context))
        x = draw(20, inputs).requires_grad_()
        body(x, draw(20, 2, seed=1) if context else None).square().sum().backward()
        for label, p in (("x", x), *body.named_parameters()):
            assert p.grad is not None, label
            assert bool(p.grad.abs().sum() > 0), label


@each
def test_context_starts_as_the_identity_and_then_acts(
    name: str, options: dict[str, Any], inputs: int, outputs: int
) -> None:
    body, plain = BODIES[name](**options, context=2), BODIES[name](**options)
    plain.load_state_dict({name: p for name, p in body.state_dict().items() if "film" not in name})
    x, context = draw(5, inputs), draw(5, 2, seed=1)
    torch.testing.assert_close(body(x, context), plain(x, None))
    torch.testing.assert_close(body(x, None), plain(x, None))
    moved(body)
    assert not torch.allclose(body(x, context), body(x, None), atol=1e-4)
    torch.testing.assert_close(body(x, torch.zeros(5, 2)), body(x, None))


@each
def test_arguments_are_kept_as_attributes(name: str, options: dict[str, Any], inputs: int, outputs: int) -> None:
    body = BODIES[name](**options)
    for argument in inspect.signature(BODIES[name]).parameters:
        assert hasattr(body, argument)
        if argument in options:
            assert getattr(body, argument) == options[argument]


@each
def test_extremes_stay_finite(name: str, options: dict[str, Any], inputs: int, outputs: int) -> None:
    for size in (1e4, -1e4):
        body = BODIES[name](**options)
        h = torch.full((3, inputs), size, requires_grad=True)
        value = body(h, None)
        value.sum().backward()
        assert bool(value.isfinite().all())
        assert all(bool(p.grad.isfinite().all()) for p in (h, *body.parameters()))  # type: ignore[union-attr]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_used(activation: str) -> None:
    x = draw(5, 6)
    linear = MLP(6, (), 3)
    for body in (MLP(6, (8,), 3, activation), ImageDecoder(6, (1, 4, 4), (3,), activation=activation)):
        twice = body(2 * x, None) - 2 * body(x, None) + body(0 * x, None)
        assert bool((twice.abs() > 1e-6).any())
    torch.testing.assert_close(linear(2 * x), 2 * linear(x))


@pytest.mark.parametrize("build", [lambda a: MLP(6, (8,), 3, a), lambda a: ImageEncoder((1, 4, 4), activation=a)])
def test_unknown_activations_are_refused(build: Any) -> None:
    with pytest.raises(ParameterError, match="Did you mean 'silu'"):
        build("sil")


def test_gated_layers_are_gated_linear_units() -> None:
    body = MLP(6, (4,), gated=True)
    x = draw(5, 6)
    a, b = body.layers[0].inner(x).chunk(2, -1)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(body(x), a * b.sigmoid())


def test_residual_blocks_start_as_the_identity() -> None:
    plain, residual = ImageEncoder((1, 8, 8), (4,), 0, 7), ImageEncoder((1, 8, 8), (4,), 2, 7)
    known = dict(residual.named_parameters())
    with torch.no_grad():
        for name, p in plain.named_parameters():
            p.copy_(known[name])
    x = draw(5, 64)
    torch.testing.assert_close(plain(x), residual(x))


def test_the_decoder_s_outputs_are_the_slowest_axis() -> None:
    body = ImageDecoder(3, (2, 5, 4), (4,), outputs=3)
    z = draw(1, 3)
    before = body(z).view(3, 2, 5, 4)
    with torch.no_grad():
        body.last.weight[4 * (1 * 2 + 1)] += 1  # output 1 of channel 1, at one of its four pixels a place
    changed = (body(z).view(3, 2, 5, 4) != before).flatten(2).any(-1)
    assert changed.nonzero().tolist() == [[1, 1]]


def test_pixels_keep_their_place() -> None:
    """The bodies read and write rows flattened as (channels, height, width)."""
    encoder = ImageEncoder((2, 6, 4), (3,), width=5)
    image = draw(1, 2, 6, 4)
    h = encoder.stages[0](image, None)
    expected = encoder.dense(h.flatten(1), None)
    torch.testing.assert_close(encoder(image.flatten(1)), expected)


@pytest.mark.parametrize(
    ("shape", "stages", "sizes"),
    [
        ((1, 28, 28), 2, [(28, 28), (14, 14), (7, 7)]),
        ((3, 7, 5), 3, [(7, 5), (4, 3), (2, 2), (1, 1)]),
        ((1, 1, 1), 1, [(1, 1), (1, 1)]),
    ],
)
def test_halvings(shape: Sequence[int], stages: int, sizes: list[tuple[int, int]]) -> None:
    assert halvings(shape, stages) == sizes


def test_an_image_body_needs_a_stage() -> None:
    for build in (lambda: ImageEncoder((1, 4, 4), ()), lambda: ImageDecoder(2, (1, 4, 4), ())):
        with pytest.raises(ParameterError, match="channels"):
            build()


@pytest.mark.parametrize("widths", [(8, 5), [3], (), (8.0,)])
def test_good_widths(widths: Sequence[int]) -> None:
    assert check_widths("hidden", widths) == tuple(widths)


@pytest.mark.parametrize("widths", [(8, 0), (-1,), (2.5,), ("8",), 8, None, "64", (float("nan"),), (float("inf"),)])
def test_bad_widths_are_refused(widths: Any) -> None:
    with pytest.raises(ParameterError, match="hidden must be whole numbers from 1"):
        check_widths("hidden", widths)
