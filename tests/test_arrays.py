"""Images, AnnData and counts are read as what they are: layouts, scales, batches, and the likelihood of counts."""

from __future__ import annotations

import itertools
import shlex
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.linear_model import LinearRegression
from small import COUNTS, DIGITS, counts, images, table

import elbowroom
from elbowroom import CountVAE
from elbowroom.cli.app import run
from elbowroom.data.dataset import rows_of
from elbowroom.data.images import check_scale, drawable, layout_of, pixels_of
from elbowroom.data.io.readers import read
from elbowroom.errors import DataError, ElbowroomWarning
from elbowroom.estimators.reporting import summarise
from elbowroom.likelihoods.auto import choose_counts, look

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (24, 6, 6, 3)).astype(np.uint8)
FIRST = np.moveaxis(RGB, -1, 1)

# ---- layouts of images


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((9, 3, 32, 32), "channels_first"),
        ((9, 1, 28, 28), "channels_first"),
        ((9, 4, 20, 30), "channels_first"),
        ((9, 2, 4, 4), "channels_first"),
        ((9, 12, 32, 32), "channels_first"),
        ((9, 32, 32, 3), "channels_last"),
        ((9, 28, 28, 1), "channels_last"),
        ((9, 20, 30, 4), "channels_last"),
        ((9, 32, 32, 12), "channels_last"),
        ((9, 5, 3, 2), "channels_last"),
        ((9, 28, 28), "channels_last"),
    ],
)
@pytest.mark.filterwarnings("ignore::elbowroom.errors.ElbowroomWarning")
def test_where_the_channels_are(shape: tuple[int, ...], layout: str) -> None:
    assert layout_of(shape) == layout


@pytest.mark.parametrize("shape", [(9, 3, 3, 3), (9, 4, 4, 16), (9, 1, 8, 1), (9, 16, 20, 24), (9, 8, 8, 8)])
def test_where_the_channels_are_is_not_guessed(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="layout='channels_last'"):
        layout_of(shape)
    assert layout_of(shape, "channels_first") == "channels_first"
    assert layout_of(shape, "channels_last") == "channels_last"


@pytest.mark.parametrize("given", [FIRST, torch.from_numpy(FIRST.copy())])
def test_channels_first_are_the_same_model_in_the_callers_layout(given: Any, tmp_path: Path) -> None:
    with pytest.warns(ElbowroomWarning, match=r"read as 3 channels of 6 x 6; layout='channels_first' confirms"):
        first = images().fit(given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images(layout="channels_first", epochs=1).fit(given)
        last = images().fit(RGB)
    assert first.image_shape_ == last.image_shape_ == (6, 6, 3)
    assert_array_equal(first.score_samples(given), last.score_samples(RGB))
    first.save(tmp_path / "model")
    for model in (first, elbowroom.load(tmp_path / "model")):
        assert_array_equal(model.reconstruct(given), np.moveaxis(last.reconstruct(RGB), -1, 1))
        assert_array_equal(model.sample(3, random_state=1), np.moveaxis(last.sample(3, random_state=1), -1, 1))
        z = model.transform(given)
        assert model.inverse_transform(z).shape == FIRST.shape
        with pytest.raises(DataError, match=r"Write X\.transpose\(0, 3, 1, 2\)"):
            model.score(RGB)


def test_tensors_are_arrays() -> None:
    model = images(epochs=1).fit(DIGITS[:30])
    for kind in (torch.float64, torch.float32, torch.bfloat16, torch.uint8):
        tensor = torch.from_numpy(DIGITS[:30]).to(kind)
        assert_array_equal(model.score_samples(tensor), model.score_samples(DIGITS[:30]))
    assert_array_equal(
        counts(epochs=1).fit(torch.from_numpy(COUNTS)).transform(COUNTS), counts(epochs=1).fit(COUNTS).transform(COUNTS)
    )


@pytest.mark.parametrize(("shape", "shown"), [((6, 6, 2), (6, 12)), ((4, 6, 6), (6, 24))])
@pytest.mark.filterwarnings("ignore::elbowroom.errors.ElbowroomWarning")
def test_a_report_of_any_channels(shape: tuple[int, ...], shown: tuple[int, ...]) -> None:
    X = RNG.integers(0, 256, (24, *shape)).astype(np.uint8)
    page = summarise(images(epochs=1).fit(X), X)
    assert page.originals.shape[1:] == page.reconstructions.shape[1:] == page.samples.shape[1:] == shown
    assert "</svg>" in page.html()


def test_channels_of_no_colour_are_panels() -> None:
    panels = drawable(RGB[..., :2], "channels_last", (0.0, 255.0))
    assert_array_equal(panels, np.concatenate([RGB[..., 0], RGB[..., 1]], -1) / 255)
    assert_array_equal(drawable(FIRST, "channels_first", (0.0, 255.0)), RGB / 255)


def test_pictures_of_channels_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ascontiguousarray(FIRST))
    assert (
        run(shlex.split("fit x.npy --out m --channels 2 --hidden 4 --n-latents 2 --epochs 1 --random-state 0 --json"))
        == 0
    )
    assert run(shlex.split("reconstruct m x.npy --out made.npy")) == 0
    assert run(shlex.split("reconstruct m x.npy --out made/")) == 0
    made = np.load("made.npy")
    assert made.shape == FIRST.shape
    assert_array_equal(np.asarray(image.open("made/03.png")), np.rint(np.moveaxis(made[3], 0, -1)))


# ---- scales of images

U8 = (DIGITS[:40] * 15).astype(np.uint8)
BLACK_WHITE = ((DIGITS[:40] > 8) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("x", "kind", "pixels"),
    [
        (U8, "whole", (0, 255)),
        (U8 / 255, "real", (0, 1)),
        (U8 / 4, "real", (0, 60)),
        (U8 // 5, "whole", (0, 255)),
        (DIGITS, "whole", (0, 16)),
        (U8 * 257.0, "whole", (0, 240 * 257)),
        (BLACK_WHITE, "binary", (0, 255)),
        (BLACK_WHITE // 255, "binary", (0, 1)),
        (BLACK_WHITE > 0, "binary", (0, 1)),
        (BLACK_WHITE / 127.5 - 1, "binary", (-1, 1)),
        (BLACK_WHITE * np.uint16(257), "binary", (0, 65535)),
        (BLACK_WHITE // 2, "whole", (0, 255)),
        (np.zeros((3, 2, 2)), "whole", (0, 1)),
    ],
)
def test_what_pixels_are(x: np.ndarray, kind: str, pixels: tuple[float, float]) -> None:
    assert pixels_of(x) == (kind, pixels)
    check_scale(x, kind, pixels)  # type: ignore[arg-type]


@pytest.mark.parametrize("x", [U8 * 0, U8 // 200, U8 * 0.0, U8 * 1.0, U8 + 100.0, U8 / 2])
def test_dark_and_bright_images_are_on_the_scale(x: np.ndarray) -> None:
    check_scale(x, "real", (0, 255))


def test_intensities_of_eight_bits_are_drawn_only_on_their_scale() -> None:
    model = images(binarize="sample", epochs=1).fit(U8)
    for other in (U8 / 255, np.float32(U8 / 255), U8 > 99, (U8 > 99) * 1):
        with pytest.raises(DataError, match=r"from 0 to 255, but row 0.*Write X \* 255\."):
            model.score(other)
    assert np.isfinite(model.score(U8[:1] * 0))
    assert_array_equal(model.score_samples(U8 * 1.0), model.score_samples(U8))


@pytest.mark.parametrize(("black", "white"), [(0, 255), (-1, 1), (0, 16), (0, 65535)])
def test_black_and_white_in_any_numbers_is_a_bernoulli(black: float, white: float, tmp_path: Path) -> None:
    plain = images().fit(DIGITS[:40] > 8)
    X = np.where(DIGITS[:40] > 8, white, black)
    model = images().fit(X)
    assert model.likelihood_ == plain.likelihood_ == "bernoulli"
    assert model.likelihood_reason_ == f"every pixel is {black} or {white}"
    model.save(tmp_path / "model")
    for again in (model, elbowroom.load(tmp_path / "model")):
        assert_array_equal(again.score_samples(X), plain.score_samples(DIGITS[:40] > 8))
        expected = black + (white - black) * plain.reconstruct(DIGITS[:40] > 8)
        np.testing.assert_allclose(again.reconstruct(X), expected, rtol=1e-6)
        assert set(np.unique(again.sample(20, random_state=0))) == {black, white}
        with pytest.raises(DataError, match="every pixel must be"):
            again.score(np.where(DIGITS[:9] > 12, (black + white) / 2, X[:9]))


def test_black_and_white_as_asked_for() -> None:
    assert images(epochs=1, likelihood="bernoulli").fit(BLACK_WHITE).score(BLACK_WHITE) == images(epochs=1).fit(
        BLACK_WHITE
    ).score(BLACK_WHITE)
    logistic = images(epochs=1, likelihood="discretized_logistic").fit(BLACK_WHITE)
    assert np.isfinite(logistic.score(U8))


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32])
def test_dark_photos_are_of_eight_bits(kind: type) -> None:
    dark = RNG.integers(0, 51, (30, 6, 6)).astype(kind)
    model = images(epochs=1).fit(dark)
    assert model.likelihood_ == "discretized_logistic"
    assert model.pixel_range_ == (0, 255)
    assert np.isfinite(model.score(dark * 5))


# ---- folders of images


def test_bits_beside_bytes_are_black_and_white(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(BLACK_WHITE[0] > 0).save(tmp_path / "a.png")
    image.fromarray(BLACK_WHITE[1] > 0).save(tmp_path / "b.png")
    assert_array_equal(read(str(tmp_path)).x, BLACK_WHITE[:2] // 255)
    image.fromarray(U8[2]).save(tmp_path / "c.png")
    assert_array_equal(read(str(tmp_path)).x, np.stack([*BLACK_WHITE[:2], U8[2]]))


def test_colours_of_16_bits_are_said_to_have_8(tmp_path: Path) -> None:
    pytest.importorskip("PIL")

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    colours = (np.arange(36).reshape(3, 12) * 1800).astype(">u2")  # 4 by 3 pixels
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in colours))
    head = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    (tmp_path / "b.png").write_bytes(content)
    with pytest.warns(ElbowroomWarning, match=r"of 16 in a\.png, and of 1 more the upper 8 are kept"):
        data = read(str(tmp_path))
    assert_array_equal(data.x[1], colours.reshape(3, 4, 3) // 256)


def test_one_image_in_a_file_of_frames(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for kind in ("gif", "tif", "png", "webp"):
        image.fromarray(U8[0]).save(tmp_path / f"a.{kind}", save_all=True)
    assert len(read(str(tmp_path)).x) == 4
    image.fromarray(RGB[0]).save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=[image.new("RGB", (8, 8))])
    (tmp_path / "photos").mkdir()
    (tmp_path / "photo.jpg").rename(tmp_path / "photos/photo.jpg")
    assert read(str(tmp_path / "photos")).x.shape == (1, 6, 6, 3)


# ---- AnnData


def cells(n: int = 60, **layers: Any) -> Any:
    """Counts of 6 genes, ten times as many in cells of the batch "deep"."""
    anndata = pytest.importorskip("anndata")
    deep = np.arange(n) % 2 == 1
    x = np.random.default_rng(3).negative_binomial(2, 0.3, (n, 6)) * np.where(deep, 10, 1)[:, None]
    rows = pd.DataFrame({"batch": np.where(deep, "deep", "flat")}, index=[f"cell{i}" for i in range(n)])
    found = anndata.AnnData(sparse.csr_matrix(x.astype(np.float32)), obs=rows)
    found.var_names = [f"gene{i}" for i in range(6)]
    found.layers.update(layers)
    return found


def test_a_context_that_is_given_stands_before_the_batch_key() -> None:
    adata = cells()
    model = counts(batch_key="batch").fit(adata)
    deep = adata[adata.obs["batch"] == "deep"]
    for method in ("transform", "score_samples", "reconstruct"):
        of = getattr(model, method)
        np.testing.assert_allclose(of(adata, context="deep")[1::2], of(deep), rtol=1e-13)
        assert_array_equal(of(adata, context="flat"), of(adata.X, context="flat"))
        assert not np.array_equal(of(adata, context="deep")[::2], of(adata)[::2])
    del adata.obs["batch"]
    assert model.transform(adata, context="deep").shape == (60, 2)
    with pytest.raises(DataError, match="'batch' is not there"):
        model.transform(adata)


def test_samples_of_a_batch_have_the_totals_of_the_batch(tmp_path: Path) -> None:
    adata = cells()
    model = counts(batch_key="batch").fit(adata)
    model.save(tmp_path / "model")
    found = {}
    for again, label in itertools.product((model, elbowroom.load(tmp_path / "model")), ("deep", "flat")):
        found[label] = again.sample(300, context=label, random_state=0).sum(1)
        totals = np.asarray(adata[adata.obs["batch"] == label].X.sum(1))
        assert found[label].mean() == pytest.approx(totals.mean(), rel=0.1)
    mixed = model.sample(200, context=["deep", "flat"] * 100, random_state=1).sum(1)
    assert mixed[::2].mean() > 5 * mixed[1::2].mean()


def test_totals_of_a_batch_in_groups_of_columns() -> None:
    adata = cells()
    groups = {"negative_binomial": [0, 1, 2], "gaussian": [3], "multinomial": [4, 5]}
    model = table(likelihood=groups).fit(adata.X.toarray(), context=adata.obs["batch"].to_numpy())
    deep, flat = (model.sample(300, context=label, random_state=0) for label in ("deep", "flat"))
    totals = adata.X.toarray()[:, 4:].sum(1)
    assert deep[:, :3].sum(1).mean() > 5 * flat[:, :3].sum(1).mean()
    assert set(deep[:, 4:].sum(1)) <= set(totals[1::2])
    assert set(flat[:, 4:].sum(1)) <= set(totals[::2])


def test_a_subclass_a_view_and_other_places_of_counts() -> None:
    anndata = pytest.importorskip("anndata")

    class Mine(anndata.AnnData):  # type: ignore[misc, name-defined]
        pass

    adata = cells()
    model = counts(epochs=1).fit(adata)
    expected = model.score_samples(adata)
    assert_array_equal(counts(epochs=1).fit(Mine(adata)).score_samples(Mine(adata)), expected)
    assert_array_equal(model.score_samples(adata[:, ::-1]), expected)
    np.testing.assert_allclose(model.score_samples(adata[10:20]), expected[10:20])
    raw = adata.copy()
    raw.raw = adata
    raw.X = np.log1p(adata.X.toarray())
    assert_array_equal(model.score_samples(raw.raw.to_adata()), expected)
    assert counts(epochs=1, likelihood="gaussian").fit(raw).likelihood_ == "gaussian"


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix", "coo_matrix", "dia_matrix", "csr_array", "coo_array"])
@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint16])
def test_sparse_counts_of_any_format_and_type(kind: str, dtype: type) -> None:
    x = getattr(sparse, kind)(COUNTS.astype(dtype))
    model = counts(epochs=1).fit(x)
    assert_array_equal(model.score_samples(x), counts(epochs=1).fit(COUNTS).score_samples(COUNTS))


def test_entries_of_one_place_are_summed() -> None:
    halves = sparse.csr_matrix(np.tile(COUNTS, 2) / 2.0)
    halves = sparse.csr_matrix((halves.data, halves.indices % 5, halves.indptr), shape=COUNTS.shape)
    assert not halves.has_canonical_format
    before = halves.data.copy()
    model = counts(epochs=1).fit(halves)
    assert_array_equal(model.score_samples(halves), counts(epochs=1).fit(COUNTS).score_samples(COUNTS))
    assert_array_equal(halves.data, before)


def test_reconstructions_in_an_h5ad_keep_what_is_known_of_the_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    anndata = pytest.importorskip("anndata")
    adata = cells(counts=cells().X)
    adata.X = np.log1p(adata.X.toarray())
    adata.var["chromosome"] = list("abcabc")
    adata.uns["made"], adata.obsm["X_pca"] = "today", np.ones((60, 2))
    adata.write_h5ad("cells.h5ad")
    words = "--layer counts --batch-key batch --hidden 8 --n-latents 2 --epochs 1 --random-state 0"
    assert run(shlex.split(f"fit cells.h5ad --out m {words}")) == 0
    assert run(shlex.split("reconstruct m cells.h5ad --out r.h5ad")) == 0
    assert run(shlex.split("score m cells.h5ad --draws 0 --out s.h5ad")) == 0
    model, made = elbowroom.load("m"), anndata.read_h5ad("r.h5ad")
    assert_array_equal(made.X, model.reconstruct(adata))
    pd.testing.assert_frame_equal(made.obs, anndata.read_h5ad("cells.h5ad").obs)
    assert list(made.var["chromosome"]) == list("abcabc")
    assert made.uns["made"] == "today"
    assert_array_equal(made.obsm["X_pca"], adata.obsm["X_pca"])
    assert_array_equal(made.layers["counts"].toarray(), adata.layers["counts"].toarray())
    scores = anndata.read_h5ad("s.h5ad")
    assert list(scores.obs["batch"]) == list(adata.obs["batch"])
    assert list(scores.var_names) == ["elbo", "distortion", "rate"]
    np.testing.assert_allclose(scores.X[:, 0], model.score_samples(adata))


# ---- the likelihood of counts

DEPTH = np.random.default_rng(5).lognormal(3, 0.8, (400, 1))
SHARE = np.random.default_rng(6).dirichlet(np.full(30, 0.5))


def chosen(x: Any) -> str:
    return str(choose_counts(look(rows_of(x))).likelihood)


@pytest.mark.parametrize("seed", range(5))
def test_counts_of_any_depth_are_poisson_only_where_they_do_not_vary_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mean = DEPTH * SHARE
    assert chosen(rng.poisson(mean)) == "poisson:library=true"
    assert chosen(np.stack([rng.multinomial(int(n), SHARE) for n in DEPTH[:, 0]])) == "poisson:library=true"
    assert chosen(rng.negative_binomial(3, 3 / (3 + mean))) == "negative_binomial"
    assert chosen(rng.poisson(mean * rng.gamma(5, 1 / 5, mean.shape))) == "negative_binomial"


def test_dispersion_is_exact_however_the_rows_are_stored() -> None:
    x = np.random.default_rng(0).negative_binomial(1, 0.3, (6000, 70))
    rows, n = x.sum(1, keepdims=True), x.sum()
    columns = x.sum(0, keepdims=True)
    variance = rows * columns * (n - rows) * (n - columns) / (n**2 * (n - 1))  # hypergeometric, of each cell
    expected = np.square(x - rows * columns / n).sum() / variance.sum()
    for stored in (x, sparse.csr_matrix(x), x.astype(np.float32)):
        assert look(rows_of(stored)).dispersion[0] == pytest.approx(expected, rel=1e-12)


def test_dispersion_of_poisson_counts_is_one_within_its_error() -> None:
    z = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ratio, error = look(rows_of(rng.poisson(DEPTH[:80] * SHARE))).dispersion
        z.append((ratio - 1) / error)
    assert abs(np.mean(z)) < 0.4
    assert 0.4 < np.std(z) < 1.3


def test_latents_say_composition_and_not_depth() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.dirichlet(np.full(20, 0.5), 2)
    depth = rng.lognormal(4.5, 0.8, (200, 1))
    mean = depth * kinds[rng.integers(0, 2, 200)]
    x = rng.negative_binomial(4, 4 / (4 + mean))

    def depth_in(**settings: Any) -> float:
        model = CountVAE(n_latents=3, hidden=(32,), epochs=30, random_state=0, **settings).fit(x)
        z, log_total = model.transform(x), np.log1p(x.sum(1))
        return float(LinearRegression().fit(z, log_total).score(z, log_total))

    assert depth_in(likelihood="poisson:library=false") > 0.6
    assert depth_in() < 0.2
