"""Sparse batches, interactions, protocols, metrics and baselines: beside their dense or brute-force twins."""

from __future__ import annotations

import math
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats
from sklearn.metrics import ndcg_score
from small import matrix

from elbowroom import EASE, Fold, ItemKNN, Popularity, RatingMeans, Split, evaluate
from elbowroom import distributions as d
from elbowroom.data.dataset import InteractionRows
from elbowroom.data.datasets import msweb
from elbowroom.data.interactions.matrix import Interactions, Vocabulary
from elbowroom.data.interactions.reading import Reading
from elbowroom.data.interactions.splits import cut
from elbowroom.data.sparse import SparseBatch, dot
from elbowroom.distributions.items import Items
from elbowroom.distributions.kernels import OwnLogits
from elbowroom.errors import DataError, ElbowroomWarning, ParameterError
from elbowroom.likelihoods.items import ItemMultinomial, ItemNegativeBinomial, ItemPoisson, ItemRatings
from elbowroom.nn.layers import SparseLinear
from elbowroom.nn.mlp import MLP
from elbowroom.tasks.recommend.baselines import side_by_side
from elbowroom.tasks.recommend.topk import best, in_order
from elbowroom.training.checkpoints import checksum
from elbowroom.utils.randomness import normal_by_row

matrices = st.builds(
    matrix, st.integers(1, 12), st.integers(1, 30), st.floats(0, 1), st.integers(0, 99), st.integers(1, 4)
)


# ---- sparse batches --------------------------------------------------------------------------------------------------


@given(matrices)
def test_a_sparse_batch_is_its_dense_twin(X):
    x, dense = SparseBatch.of(X), torch.from_numpy(X.toarray())
    table = torch.randn(3, *X.shape)
    columns = torch.randint(X.shape[1], (7,))
    assert torch.equal(x.dense(), dense)
    assert x.shape == X.shape
    assert len(x) == X.shape[0]
    assert torch.equal(x.sum(), dense.sum(-1))
    assert torch.equal(x.sum(keepdim=True), dense.sum(-1, keepdim=True))
    assert float(x.min()) == min(0.0, float(dense.min()))
    assert torch.allclose(dot(x, table), dot(dense, table), atol=1e-5)
    assert torch.allclose(x.unit_length(torch.float64).dense(), torch.nn.functional.normalize(dense.double(), dim=-1))
    assert torch.equal(x.dense_at(columns), dense[:, columns])
    assert (x.csr() != X).nnz == 0
    index = torch.randint(len(x), (5,))
    assert torch.equal(x.rows(index).dense(), dense[index])


@given(matrices)
def test_the_noise_of_a_row_is_that_of_its_dense_twin(X):
    assert np.array_equal(normal_by_row(X, 2, 3), normal_by_row(X.toarray(), 2, 3))


@given(matrices)
def test_a_sparse_layer_is_a_linear_one(X):
    layer = SparseLinear(X.shape[1], 4)
    dense = torch.from_numpy(X.toarray())
    assert torch.allclose(layer(SparseBatch.of(X)), dense @ layer.weight + layer.bias, atol=1e-5)
    assert torch.allclose(layer(dense), dense @ layer.weight + layer.bias, atol=1e-5)


def test_dropout_hides_a_share_of_what_is_there():
    body = MLP(4000, (8,), sparse=True, dropout=0.3)
    seen = []
    body.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].values))
    x = SparseBatch.of(sparse.csr_matrix(np.ones((5, 4000), np.float32)))
    body(x)
    body.eval()(x)
    assert abs(float((seen[0] == 0).float().mean()) - 0.3) < 0.02
    assert torch.equal(seen[0].unique(), torch.tensor([0.0, 1 / 0.7]))
    assert torch.equal(seen[1], x.values)


def test_norm_and_residual_layers_start_as_they_should():
    h = torch.randn(6, 8)
    plain, both = MLP(8, (8,), activation="tanh"), MLP(8, (8,), activation="tanh", norm=True, residual=True)
    both.layers[0].inner = plain.layers[0].inner
    inner = plain.layers[0].inner(h)
    assert torch.allclose(both(h), h + torch.nn.functional.layer_norm(inner, (8,)).tanh())


def test_rows_of_interactions_stay_sparse_and_have_a_checksum():
    X = matrix(30, 1000, 0.01)
    rows = InteractionRows(X)
    some = rows.take(torch.tensor([3, 1, 4]))
    assert torch.equal(some.batch(torch.tensor([2, 0])).x.dense(), torch.from_numpy(X[[4, 3]].toarray()))
    assert len(rows.spread(2)) == 30
    other = X.copy()
    other.data[5] += 1
    assert checksum(rows) != checksum(InteractionRows(other))
    assert checksum(rows) == checksum(InteractionRows(X.copy()))


# ---- the likelihood of items -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", [(), (3,)])
def test_the_likelihood_of_items_is_the_multinomial(draws):
    """Value and gradients of the fused kernel are those that autograd has through a dense multinomial."""
    X = matrix(6, 9, 0.5, high=3)
    x, dense = SparseBatch.of(X), torch.from_numpy(X.toarray()).double()
    likelihood = ItemMultinomial(9, 4).double()
    h = torch.randn(*draws, 6, 4, dtype=torch.float64, requires_grad=True)
    parameters = (h, likelihood.table, likelihood.bias)
    total = likelihood.row_total(x)
    weights = torch.randn(*draws, 6, dtype=torch.float64)
    p = likelihood(h, total)
    usual = d.Multinomial(h @ likelihood.table.mT + likelihood.bias, total)
    for given_rows in (x, dense):
        assert torch.allclose(p.log_prob(given_rows), usual.log_prob(dense))
        found = torch.autograd.grad((likelihood(h, total).log_kernel(given_rows) * weights).sum(), parameters)
        expected = torch.autograd.grad((usual.log_kernel(dense) * weights).sum(), parameters, retain_graph=True)
        for a, b in zip(found, expected, strict=True):
            assert torch.allclose(a, b)
    assert torch.allclose(p.mean, usual.mean)


@pytest.mark.parametrize("kind", [ItemPoisson, ItemNegativeBinomial])
@pytest.mark.parametrize("draws", [(), (3,)])
def test_counts_of_items_have_their_own_distributions(kind, draws):
    """Log-probabilities and moments of scipy's distributions, whose means are the total's shares.

    Those of Poisson counts are given the total, which is Poisson too.
    """
    X = matrix(6, 9, 0.5, high=3)
    x, dense = SparseBatch.of(X), torch.from_numpy(X.toarray()).double()
    likelihood = kind(9, 4).double()
    if kind is ItemNegativeBinomial:
        likelihood.log_dispersion.data.normal_()
    h = torch.randn(*draws, 6, 4, dtype=torch.float64)
    total = likelihood.row_total(x)
    p = likelihood(h, total)
    mean = (total * (h @ likelihood.table.mT + likelihood.bias).softmax(-1)).detach().numpy()
    if kind is ItemPoisson:
        expected = stats.poisson(mean).logpmf(dense.numpy())
        expected[..., :1] -= stats.poisson(total.numpy()).logpmf(dense.sum(-1, keepdim=True).numpy())
    else:
        r = likelihood.log_dispersion.exp().detach().numpy()
        expected = stats.nbinom(r, r / (r + mean)).logpmf(dense.numpy())
    seen = (total[:, 0] > 0).numpy()  # a total of nothing is taken for nearly nothing by the one, exactly by the other
    for given_rows in (x, dense):
        found = p.log_prob(given_rows).detach().numpy()
        np.testing.assert_allclose(found[..., seen], expected.sum(-1)[..., seen], rtol=1e-9)
        assert np.isfinite(found).all()
    np.testing.assert_allclose(p.mean.detach().numpy(), mean)
    one = likelihood(h[..., :1, :].expand(*draws, 6000, 4), torch.full((6000, 1), 7.0))
    many = one.sample(torch.Generator().manual_seed(0))
    error = many.std(-2) / math.sqrt(6000)
    assert ((many.mean(-2) - one.mean[..., 0, :]).abs() < 5 * error).all()


@pytest.mark.parametrize("draws", [(), (3,)])
def test_ratings_are_gaussian_where_there_are_any(draws):
    X = matrix(6, 9, 0.5, high=5)
    x, dense = SparseBatch.of(X), torch.from_numpy(X.toarray()).double()
    likelihood = ItemRatings(9, 4).double()
    likelihood.fit_marginals(x)
    likelihood.log_error.data.normal_()
    h = torch.randn(*draws, 6, 4, dtype=torch.float64, requires_grad=True)
    p = likelihood(h)
    mean = (h @ likelihood.table.mT + likelihood.bias).detach().numpy()
    std = (likelihood.log_error.exp() * likelihood.spread).detach().numpy()
    expected = np.where(X.toarray() > 0, stats.norm(mean, std).logpdf(dense.numpy()), 0.0).sum(-1)
    grads = []
    for given_rows in (x, dense):
        np.testing.assert_allclose(p.log_prob(given_rows).detach().numpy(), expected, rtol=1e-9)
        parameters = (h, likelihood.table, likelihood.bias, likelihood.log_error)
        grads.append(torch.autograd.grad(likelihood(h).log_kernel(given_rows).sum(), parameters))
        assert torch.allclose(likelihood.inputs(x).dense(), likelihood.inputs(dense))
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other)
    np.testing.assert_allclose(p.mean.detach().numpy(), mean)


@pytest.mark.parametrize("draws", [(), (3,)])
def test_logits_of_what_is_stored_are_those_of_the_table(draws, monkeypatch):
    """Value and gradients beside autograd's, in parts of a few and in one."""
    x = SparseBatch.of(matrix(6, 9, 0.5))
    h = torch.randn(*draws, 6, 4, dtype=torch.float64, requires_grad=True)
    table = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(*draws, len(x.columns), dtype=torch.float64)
    usual = x.at(h @ table.mT)
    expected = torch.autograd.grad((usual * weights).sum(), (h, table))
    for part in (1, 4, 512):
        monkeypatch.setattr("elbowroom.distributions.kernels.PART", part)
        found = OwnLogits.apply(h, table, x)
        torch.testing.assert_close(found, usual)
        for one, other in zip(torch.autograd.grad((found * weights).sum(), (h, table)), expected, strict=True):
            torch.testing.assert_close(one, other)
    nothing = OwnLogits.apply(h[..., :1, :], table, SparseBatch.of(sparse.csr_matrix((1, 9))))
    assert nothing.shape == (*draws, 0)


def test_the_kernel_of_items_says_when_it_is_used_twice():
    likelihood, x = ItemMultinomial(9, 4), SparseBatch.of(matrix(6, 9, 0.5))
    loss = likelihood(torch.randn(6, 4), likelihood.row_total(x)).log_kernel(x).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


def test_samples_of_items_have_the_mean_and_the_total():
    likelihood = ItemMultinomial(5, 3)
    total = torch.full((4000, 1), 7.0)
    p = likelihood(torch.randn(1, 3).expand(4000, 3), total)
    drawn = p.sample(torch.Generator().manual_seed(0))
    assert torch.equal(drawn.sum(-1), total[:, 0])
    error = drawn.std(0) / math.sqrt(4000)
    assert ((drawn.mean(0) - p.mean[0]).abs() < 5 * error).all()


def test_the_sampled_sum_is_unbiased():
    """The mean of the estimated sum over many draws is the sum over all items, within its standard error."""
    X = matrix(4, 40, 0.2, high=2)
    x = SparseBatch.of(X)
    likelihood = ItemMultinomial(40, 3, sampled=10).double()
    likelihood.fit_marginals(x)
    h = 2 * torch.randn(4, 3, dtype=torch.float64)
    exact = (h @ likelihood.table.mT + likelihood.bias).logsumexp(-1).exp()
    total, own = x.sum().double(), dot(x, h @ likelihood.table.mT + likelihood.bias)
    there = total > 0
    kernels = torch.stack([likelihood(h, total.unsqueeze(-1)).log_kernel(x) for _ in range(3000)]).detach()
    sums = ((own - kernels) / total.clamp_min(1)).exp()[:, there]
    error = sums.std(0) / math.sqrt(len(sums))
    assert ((sums.mean(0) - exact[there]).abs() < 4 * error).all()
    assert not torch.equal(kernels[0], kernels[1])
    assert isinstance(likelihood.eval()(h, total.unsqueeze(-1)), Items)


def test_the_likelihood_of_items_starts_at_their_popularity():
    X = matrix(50, 8, 0.4, high=2)
    likelihood = ItemMultinomial(8, 3)
    likelihood.table.data.zero_()
    for x in (SparseBatch.of(X), torch.from_numpy(X.toarray())):
        likelihood.fit_marginals(x)
        chances = likelihood(torch.zeros(1, 3), torch.ones(1, 1)).mean[0].detach().numpy()
        seen = np.asarray(X.sum(0)).ravel() + 0.5
        assert np.allclose(chances, seen / seen.sum(), atol=1e-6)
        assert torch.equal(likelihood.totals[[0, -1]], torch.tensor([0.0, float(X.sum(1).max())]))


@pytest.mark.parametrize("sampled", [-1, 2.5, True, "all"])
def test_a_number_of_sampled_items_that_is_none_is_refused(sampled):
    with pytest.raises(ParameterError, match="sampled"):
        ItemMultinomial(9, 4, sampled=sampled)


# ---- reading ---------------------------------------------------------------------------------------------------------


CLICKS = {"who": ["b", "a", "b", "c", "a"], "what": [30, 10, 10, 20, 10], "stars": [5.0, 2.0, 3.0, 4.0, 2.0]}


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, pa.table])
def test_frames_are_read_by_their_ids(frame):
    found = Reading().learn(frame(CLICKS))
    assert found.users.ids.tolist() == ["a", "b", "c"]
    assert found.items.ids.tolist() == [10, 20, 30]
    assert found.matrix.toarray().tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    counts = Reading(counts=True).learn(frame(CLICKS)).matrix.toarray()
    assert counts.tolist() == [[2, 0, 0], [1, 0, 1], [0, 1, 0]]
    liked = Reading(value="stars", threshold=4).learn(frame(CLICKS))
    assert liked.matrix.toarray().tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]  # the two halves of a's are added
    rated = Reading(value="stars", ratings=True).learn(frame(CLICKS))
    assert rated.matrix.toarray().tolist() == [[2, 0, 0], [3, 0, 5], [0, 4, 0]]  # the last of a's two
    turned = Reading(user="what", item="who").learn(frame(CLICKS))
    assert turned.users.ids.tolist() == [10, 20, 30]


NOTE = "users are taken from column {!r}, items from column {!r}"


@pytest.mark.parametrize(
    ("names", "user", "item", "said"),
    [
        (["user", "item"], "user", "item", False),
        (["user_id", "item_id", "rating", "timestamp"], "user_id", "item_id", False),
        (["userId", "movieId"], "userId", "movieId", False),
        (["user_id:token", "item_id:token", "rating:float"], "user_id:token", "item_id:token", False),
        (["this", "that"], "this", "that", False),
        (["item", "user"], "user", "item", True),
        (["timestamp", "user_id", "item_id"], "user_id", "item_id", True),
        (["Rating", "ITEM", "Customer No"], "Customer No", "ITEM", True),
        (["session", "user", "item"], "user", "item", True),  # of several, who they are rather than when
        (["visitor", "artist", "track"], "visitor", "track", True),
        (["this", "that", "other"], "this", "that", True),
        (["thing", "user"], "user", "thing", True),
    ],
)
@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, pa.table])
def test_columns_are_known_by_their_names(recwarn, names, user, item, said, frame):
    found = Reading().learn(frame({name: [j, j + 10] for j, name in enumerate(names)}))
    assert found.users.ids[0] == names.index(user)
    assert found.items.ids[0] == names.index(item)
    assert [str(warning.message) for warning in recwarn] == [NOTE.format(user, item)] * said


def test_columns_that_are_named_are_taken(recwarn):
    frame = pd.DataFrame({"user": [1, 2], "item": [3, 4], "customer": [5, 6], "product": [7, 8]})
    found = Reading(user="customer", item="product").learn(frame)
    assert (found.users.ids.tolist(), found.items.ids.tolist()) == ([5, 6], [7, 8])
    assert not recwarn.list
    played = frame.set_axis(["plays", "user", "item", "x"], axis=1)
    assert Reading(value="plays", counts=True).learn(played).items.ids.tolist() == [5, 6]


@pytest.mark.parametrize(
    ("ids", "known"),
    [
        (np.array([2**63 + 1, 2**63], np.uint64), [2**63, 2**63 + 1]),
        (pd.array([2**60 + 1, 2**60], "Int64"), [2**60, 2**60 + 1]),
        ([2**60 + 1, 2**60], [2**60, 2**60 + 1]),
        ([3.0, -2.0], [-2, 3]),
        ([Decimal(7), Decimal(2**60 + 1)], [7, 2**60 + 1]),
        (np.array([1, 2.0], object), [1, 2]),
        (pd.Categorical(["b", "a"]), ["a", "b"]),
        (pd.Categorical([20, 10]), [10, 20]),
        (pa.array(["b", "a"], pa.large_string()), ["a", "b"]),
        (pa.array(["b", "a"]).dictionary_encode(), ["a", "b"]),
        (["a\0", "a"], ["a", "a\0"]),
        (["NA", ""], ["", "NA"]),
        (["x" * 5000, "y"], ["x" * 5000, "y"]),
    ],
)
def test_ids_of_all_kinds_are_kept(ids, known):
    columns = {"user": ids, "item": [1, 2]}
    found = Reading().learn(pa.table(columns) if isinstance(ids, pa.Array) else pd.DataFrame(columns))
    assert found.users.ids.tolist() == known
    again = Interactions.of_tensors(found.tensors())
    assert again.users.ids.tolist() == known
    assert again.users.ids.dtype == found.users.ids.dtype
    assert again.users.positions(again.users.ids[::-1]).tolist() == [1, 0]


def test_ids_of_either_sign_are_distinct():
    small, large = (Vocabulary.learn(ids)[0] for ids in (np.array([-1, 5]), np.array([5, 2**64 - 1], np.uint64)))
    assert large.positions(small.ids).tolist() == [-1, 0]
    assert small.positions(large.ids).tolist() == [1, -1]
    found = Reading().learn(pd.DataFrame({"user": [1, 2], "item": [1, 2]}))
    more = Reading().more(found, np.array([2, 2**63], np.uint64), found.matrix)
    assert more.users.ids.tolist() == [1, 2, 2**63]
    with pytest.raises(DataError, match="must fit into 64 bits"):
        Reading().more(Interactions(found.matrix, small, found.items), np.array([2, 2**63], np.uint64), found.matrix)


def test_times_keep_all_their_digits():
    first = np.datetime64("2026-01-31T00:00:00", "ns")
    for when in (
        first + np.array([2, 1, 3]),
        [1_700_000_000_000_000_002, 1_700_000_000_000_000_001, 1_700_000_000_000_000_003],
        [f"17{'0' * 16}{i}" for i in (2, 1, 3)],
    ):
        frame = pd.DataFrame({"user": [1, 1, 1], "item": ["b", "a", "c"], "when": when})
        assert Reading().in_time(frame, "when")["item"].tolist() == ["a", "b", "c"]


def test_few_interactions_are_left_out_again_and_again():
    X = sparse.csr_matrix(np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1]]))
    found = Reading(min_user=2, min_item=2).learn(X)
    assert (found.users.ids.tolist(), found.items.ids.tolist()) == ([0, 1], [0, 1])
    assert Reading().learn(X).matrix.shape == (4, 4)


BAD = [
    (sparse.csr_matrix((3, 4)), {}, "there must be interactions"),
    (sparse.csr_matrix(-np.eye(3)), {"threshold": 1}, "none are left"),
    (sparse.csr_matrix(np.array([[np.nan, 1.0]])), {}, "finite"),
    (sparse.csr_matrix(np.array([[np.inf, 1.0]])), {}, "finite"),
    (np.ones(5), {}, "sparse matrix"),
    ("clicks.csv", {}, "sparse matrix"),
    ([["u", "i"]], {}, "sparse matrix"),
    (sparse.csr_matrix(np.array([[0.5, 1.0]])), {"counts": True}, "whole numbers"),
    (pd.DataFrame({"user": [1, 2]}), {}, "a column of users and one of items"),
    (pd.DataFrame(CLICKS), {"user": "woh"}, "Did you mean 'who'"),
    (pd.DataFrame(CLICKS), {"value": "who"}, "finite numbers"),
    (pd.DataFrame({"user": [1, None, 3], "item": [1, 2, 3]}), {}, "ids must be"),
    (pd.DataFrame({"user": [1, 2.5], "item": [1, 2]}), {}, "2.5"),
    (pd.DataFrame({"user": ["a", None], "item": [1, 2]}, dtype=object), {}, "None"),
    (pd.DataFrame({"user": [(1, 2), (3, 4)], "item": [1, 2]}), {}, "ids must be"),
    (pd.DataFrame(CLICKS), {"min_user": 9}, "none are left"),
    (pd.DataFrame(CLICKS), {"value": "stars", "threshold": 9}, "none are left"),
]


@pytest.mark.parametrize(("X", "options", "words"), BAD)
def test_bad_interactions_are_refused_in_three_parts(X, options, words):
    with pytest.raises((DataError, ParameterError)) as caught:
        Reading(**options).learn(X)
    assert words in str(caught.value)
    assert caught.value.do


@pytest.mark.parametrize("ids", [["b", "", "ü", "\ud800"], [7, -3, 2**40, 0]])
def test_interactions_come_back_from_their_tensors(ids):
    frame = pd.DataFrame({"user": pd.Series(ids, dtype=object), "item": [5, 4, 5, 5], "n": [1, 2, 3, 4]})
    found = Reading(value="n", counts=True).learn(frame)
    again = Interactions.of_tensors(found.tensors())
    assert (again.matrix != found.matrix).nnz == 0
    assert again.users.ids.tolist() == found.users.ids.tolist() == sorted(ids)
    assert again.items.ids.tolist() == [4, 5]


def letters(*texts):
    content = "".join(texts).encode()
    ends = torch.tensor([len(text.encode()) for text in texts]).cumsum(0)
    return {"users.letters": torch.frombuffer(bytearray(content), dtype=torch.uint8), "users.ends": ends}


@pytest.mark.parametrize(
    "change",
    [
        letters("a", "b"),
        letters("b", "a", "c"),
        letters("a", "a", "c"),
        letters("a" * 5000, *[f"{i:04}" for i in range(6000)]),
        letters("a", "b", "c") | {"users.ends": torch.tensor([1, 3, 2])},
        letters("a", "b", "c") | {"users.ends": torch.tensor([1, 2, 2**62])},
        letters("a", "b", "c") | {"users.ends": torch.tensor([1, 2])},
        letters("a", "b", "c") | {"users.letters": torch.tensor([255, 98, 99], dtype=torch.uint8)},
        letters("a", "b", "c") | {"users.letters": torch.tensor([97, 98, 99])},
        {"users.ids": torch.tensor([1, 2, 3])},
        {"users.letters": None, "users.ends": None, "users.ids": torch.tensor([1, 3, 2])},
        {"users.letters": None, "users.ends": None, "users.ids": torch.tensor([[1], [2], [3]])},
        {"users.letters": None, "users.ends": None, "users.ids": torch.tensor([1.0, 2.0, 3.0])},
        {"users.letters": None},
        {"users.letters": None, "users.ends": None},
        {"users.more": torch.ones(1)},
        {"more": torch.ones(1)},
        {"starts": None},
        {"starts": torch.tensor([0, 9, 3, 4])},
        {"starts": torch.tensor([0, 1, 3])},
        {"starts": torch.tensor([0.0, 1.0, 3.0, 4.0])},
        {"columns": torch.tensor([0, 1, 0, 7], dtype=torch.int32)},
        {"columns": torch.tensor([0, 0, 0, -1], dtype=torch.int32)},
        {"columns": torch.tensor([0, 2, 0, 1], dtype=torch.int32)},
        {"values": torch.tensor([1.0, math.nan, 1.0, 1.0])},
        {"values": torch.tensor([1.0, math.inf, 1.0, 1.0])},
        {"values": torch.tensor([1.0, -1.0, 1.0, 1.0])},
        {"values": torch.ones(4, dtype=torch.float64)},
        {"values": torch.ones(4, dtype=torch.bfloat16)},
        {"values": torch.ones(4, 1)},
        {"values": torch.ones(5)},
    ],
)
def test_broken_tensors_are_no_interactions(change):
    tensors = Reading().learn(pd.DataFrame(CLICKS)).tensors()
    Interactions.of_tensors(tensors)
    changed = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
    with pytest.raises((ValueError, KeyError, TypeError)):
        Interactions.of_tensors(changed)


def test_a_vocabulary_tells_strangers():
    known, positions = Vocabulary.learn(np.array(["b", "a", "b"]))
    assert positions.tolist() == [1, 0, 1]
    assert known.positions(np.array(["a", "z", "b", "A"])).tolist() == [0, -1, 1, -1]
    assert known.positions(np.array([1, 2])).tolist() == [-1, -1]


def test_the_bundled_clicks_are_there():
    X = msweb()
    assert X.shape == (32_710, 285)
    assert X.nnz == 98_653
    assert (X.data == 1).all()


@pytest.mark.parametrize(
    "kind", [np.asarray, sparse.csr_array, sparse.coo_matrix, sparse.lil_array, sparse.csc_matrix, torch.as_tensor]
)
@pytest.mark.parametrize("dtype", [bool, np.int8, np.float32])
def test_matrices_of_any_kind_are_read_alike(kind, dtype):
    X = matrix(20, 10, 0.4)
    found = Reading().learn(kind(X.toarray().astype(dtype))).matrix
    assert (found.dtype, found.toarray().tolist()) == (np.float32, X.toarray().tolist())


@pytest.mark.parametrize("form", ["coo", "csr"])
def test_true_twice_is_true(form):
    """As in scipy, whose bool matrices add up to True; of numbers they add up to 2, which needs counts=True."""
    twice = np.array([True, True, True]), ([0, 0, 1], [0, 0, 1])
    if form == "csr":
        twice = twice[0], np.array([0, 0, 1]), np.array([0, 2, 3])
    X = {"coo": sparse.coo_matrix, "csr": sparse.csr_matrix}[form](twice, (2, 2))
    assert Reading().learn(X).matrix.toarray().tolist() == [[1, 0], [0, 1]]
    with pytest.raises(DataError, match="first: 2 in row 0, column 0"):
        Reading().learn(X.astype(int))


def test_a_threshold_leaves_out_what_is_less_and_negative():
    dense = np.array([[-5.0, 0.5, 2.0], [3.0, -0.1, 1.9]])
    assert Reading(threshold=2).learn(dense).matrix.toarray().tolist() == [[0, 0, 1], [1, 0, 0]]
    frame = pd.DataFrame({"u": [0, 0, 0, 1], "i": [0, 0, 1, 1], "v": [5.0, -4.0, -1.0, 2.0]})  # the first two: 1
    assert Reading(value="v", threshold=2).learn(frame).matrix.toarray().tolist() == [[0, 0], [0, 1]]
    with pytest.raises(DataError, match="negative"):
        Reading(value="v", counts=True, threshold=2).learn(frame)


# ---- protocols -------------------------------------------------------------------------------------------------------


@given(matrices, st.floats(0.05, 0.95), st.integers(0, 1))
def test_a_cut_is_a_partition_of_every_row(X, share, least):
    rest, some = cut(X, share, np.random.default_rng(0), least)
    assert ((rest + some) != X).nnz == 0
    assert rest.multiply(some).nnz == 0
    sizes, drawn = np.diff(X.indptr), np.diff(some.indptr)
    assert (drawn < np.maximum(sizes, 1)).all()
    assert (drawn >= np.minimum(least, np.maximum(sizes - 1, 0))).all()
    assert (np.abs(drawn - share * sizes) <= 1).all()


def test_strong_generalisation_keeps_users_apart():
    X = matrix(200, 30, 0.3)
    split = Split.strong(X, held_out=20, random_state=3)
    assert (len(split.valid), len(split.test), split.train.shape[0]) == (20, 20, 160)
    together = sparse.vstack(
        [split.train, split.valid.fold_in + split.valid.held_out, split.test.fold_in + split.test.held_out]
    )
    rows = {tuple(row) for row in X.toarray()}
    assert {tuple(row) for row in together.toarray()} == rows
    assert together.nnz == X.nnz
    assert (np.diff(split.test.held_out.indptr) > 0).all()
    assert split.checksum == Split.strong(X, held_out=20, random_state=3).checksum
    assert split.checksum != Split.strong(X, held_out=20, random_state=4).checksum


def test_a_split_by_user_takes_the_test_that_is_given():
    X, given_test = matrix(50, 30, 0.3), matrix(50, 30, 0.1, seed=1)
    split = Split.per_user(X, given_test, valid=0.25)
    assert (split.test.fold_in != X).nnz == 0
    assert (split.test.held_out != given_test).nnz == 0
    assert ((split.train + split.valid.held_out) != X).nnz == 0
    drawn = Split.per_user(X, share=0.5)
    assert ((drawn.test.fold_in + drawn.test.held_out) != X).nnz == 0


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table])
@pytest.mark.parametrize("kind", ["number", "date", "text", "zoned", "number as text", "offset"])
def test_the_latest_interactions_are_to_be_found(library, kind):
    random = np.random.default_rng(0)
    user, item, day = random.integers(0, 6, 200), random.integers(0, 30, 200), random.permutation(200) // 2
    when: dict[str, object] = {
        "number": day,
        "date": np.datetime64("2026-01-01", "us") + day.astype("timedelta64[D]"),
        "number as text": [str(1_500_000_000 + 10**7 * int(d)) for d in day],
        "offset": [f"{np.datetime64('2026-01-01') + int(d)}T01:00:00+02:00" for d in day],
        "text": [str(np.datetime64("2026-01-01") + int(d)) for d in day],
        "zoned": pd.Series(np.datetime64("2026-01-01", "us") + day.astype("timedelta64[D]")).dt.tz_localize("UTC"),
    }
    columns = {"user": user, "item": item, "when": when[kind]}
    frame = library(
        columns
        if library is not pl.DataFrame or kind != "zoned"
        else {**columns, "when": pl.Series(when[kind].tolist())}
    )
    split = Split.latest(frame, "when", share=0.25, valid=0.2)
    assert ((split.train + split.valid.held_out + split.test.held_out) != Reading().learn(frame).matrix).nnz == 0
    for place, name in enumerate(np.unique(user)):
        first: dict[int, int] = {}
        for row in np.argsort(day, kind="stable"):
            if user[row] == name:
                first.setdefault(int(item[row]), len(first))
        n = len(first)
        tested = round(0.25 * n)
        chosen = round(0.2 * (n - tested))
        in_order = split.items.searchsorted(list(first))
        for part, expected in (
            (split.train, in_order[: n - tested - chosen]),
            (split.valid.held_out, in_order[n - tested - chosen : n - tested]),
            (split.test.held_out, in_order[n - tested :]),
        ):
            assert set(part[place].indices) == set(expected)


def test_of_ratings_the_latest_counts_and_has_its_time():
    frame = pd.DataFrame({"user": [0] * 5, "item": [1, 1, 2, 3, 4], "stars": [5, 1, 3, 4, 2.0], "t": [9, 1, 2, 3, 4]})
    split = Split.latest(frame, "t", share=0.25, valid=0.0, reading=Reading(value="stars", ratings=True))
    assert split.test.held_out.toarray().tolist() == [[5, 0, 0, 0]]
    assert split.train.toarray().tolist() == [[0, 3, 4, 2]]
    clicks = Split.latest(frame, "t", share=0.25, valid=0.0)
    assert clicks.test.held_out.toarray().tolist() == [[0, 0, 0, 1]]


def test_times_that_are_none_are_refused():
    frame = pd.DataFrame({"user": [1, 1], "item": [1, 2], "when": ["2026-01-01", "soon"]})
    with pytest.raises(DataError, match="column 'when' has others"):
        Split.latest(frame, "when")
    with pytest.raises(DataError, match="times must be"):
        Split.latest(frame.assign(when=[1.0, np.nan]), "when")
    for share in (1.5, -1, float("nan"), "half"):
        with pytest.raises(ParameterError, match="share must be"):
            Split.latest(frame, "when", share=share)
    with pytest.raises(ParameterError, match="column of the times"):
        Split.latest(frame, "then")
    with pytest.raises(DataError, match="needs a frame"):
        Split.latest(matrix(), "when")


@pytest.mark.parametrize("held_out", [np.int64(4), np.int8(4), 0.2, np.float32(0.2)])
def test_numbers_of_numpy_are_numbers(held_out):
    X = matrix(20, 10, 0.6)
    assert Split.strong(X, held_out=held_out).checksum == Split.strong(X, held_out=4).checksum


def test_a_fold_leaves_what_it_is_given():
    X = matrix(20, 10, 0.5, high=4)
    X.data[::3] = 0
    before = X.data.copy()
    fold = Fold(X.toarray(), X)
    assert np.array_equal(X.data, before)
    assert (fold.fold_in != fold.held_out).nnz == 0
    assert fold.binary.held_out.toarray().tolist() == (X.toarray() > 0).tolist()


def test_splits_that_can_not_be_made_are_refused():
    with pytest.raises(ParameterError, match="held_out"):
        Split.strong(matrix(10), held_out=6)
    with pytest.raises(DataError, match="same users and items"):
        Fold(matrix(10), matrix(11))


# ---- metrics ---------------------------------------------------------------------------------------------------------


class Fixed:
    """Recommends by given scores."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores, self.at = scores, 0

    def rank(self, histories, n):
        scores = np.where(histories.toarray() > 0, -np.inf, self.scores[self.at : self.at + histories.shape[0]])
        self.at += histories.shape[0]
        order = np.argsort(-scores, axis=1)[:, :n]
        return np.where(np.isinf(np.take_along_axis(scores, order, 1)), -1, order)


@given(st.integers(0, 50), st.integers(1, 8))
@settings(max_examples=25)
def test_metrics_are_their_definitions(seed, k):
    random = np.random.default_rng(seed)
    fold_in, held_out = cut(matrix(30, 12, 0.5, seed), 0.5, random)
    scores = random.random((30, 12))
    names = ["recall@{}[plain]", "recall@{}[min]", "precision@{}", "hit@{}", "ndcg@{}", "reciprocal_rank@{}"]
    names = [name.format(k) for name in [*names, "coverage@{}", "popularity@{}"]]
    users = np.flatnonzero(np.diff(held_out.indptr))
    found = evaluate(Fixed(scores[users]), Fold(fold_in, held_out), names, batch=7)
    assert found.users.tolist() == users.tolist()
    expected, shown = {name: [] for name in names[:6]}, set()
    for u in users:
        wanted = set(held_out[[u]].indices)
        ranked = [i for i in np.argsort(-scores[u]) if i not in set(fold_in[[u]].indices)][:k]
        hits = [i in wanted for i in ranked]
        shown |= set(ranked)
        ideal = sum(1 / math.log2(r + 2) for r in range(min(k, len(wanted))))
        values = [
            sum(hits) / len(wanted),
            sum(hits) / min(k, len(wanted)),
            sum(hits) / k,
            float(any(hits)),
            sum(h / math.log2(r + 2) for r, h in enumerate(hits)) / ideal,
            next((1 / (r + 1) for r, h in enumerate(hits) if h), 0.0),
        ]
        for name, value in zip(names, values, strict=False):
            expected[name].append(value)
    for name, values in expected.items():
        assert np.allclose(found.values[name], values), name
        assert math.isclose(found[name], np.mean(values))
    assert math.isclose(found[names[6]], len(shown) / 12)


def test_ndcg_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    held_out = matrix(40, 15, 0.4)
    held_out = held_out[np.diff(held_out.indptr) > 0]
    scores = random.random(held_out.shape)
    found = evaluate(Fixed(scores), Fold(sparse.csr_matrix(held_out.shape), held_out), ["ndcg@5"])
    assert math.isclose(found["ndcg@5"], ndcg_score(held_out.toarray(), scores, k=5), rel_tol=1e-9)


def test_comparisons_are_paired():
    random = np.random.default_rng(0)
    fold = Fold(sparse.csr_matrix((200, 15)), matrix(200, 15, 0.4))
    scores = random.random((200, 15))
    users = np.flatnonzero(np.diff(fold.held_out.indptr))
    good = evaluate(Fixed((scores + 0.5 * fold.held_out.toarray())[users]), fold, ["ndcg@5", "coverage@5"])
    plain = evaluate(Fixed(scores[users]), fold, ["ndcg@5", "coverage@5"])
    found = good.compare(plain, "ndcg@5")
    assert math.isclose(found.difference, good["ndcg@5"] - plain["ndcg@5"])
    assert found.p_value < 1e-6
    assert good.compare(good, "ndcg@5").p_value == 1.0
    assert 0 < found.standard_error < good.standard_error("ndcg@5") + plain.standard_error("ndcg@5")
    with pytest.raises(DataError, match="one value for all"):
        good.compare(plain, "coverage@5")
    with pytest.raises(ParameterError, match=r"Choose one|Did you mean"):
        good.compare(plain, "ndcg@6")
    assert "ndcg@5" in str(good)


def test_always_right_against_never_right_is_no_coincidence():
    held_out = sparse.identity(12, format="csr")
    fold = Fold(sparse.csr_matrix((12, 12)), held_out)
    right, wrong = (evaluate(Fixed(sign * held_out.toarray()), fold, ["hit@1"]) for sign in (1, -1))
    found = right.compare(wrong, "hit@1")
    assert (found.difference, found.standard_error, found.p_value) == (1.0, 0.0, 2.0**-11)
    assert wrong.compare(right, "hit@1").p_value == 2.0**-11


def test_metrics_have_the_places_that_they_name():
    """At most as many as there are items: those that are usual become fewer, and are called so."""
    fold = Fold(sparse.csr_matrix((1, 30)), sparse.csr_matrix(np.eye(1, 30)))
    model = Fixed(np.arange(30.0)[None])
    assert list(evaluate(model, fold).values)[-4:] == ["ndcg@20", "ndcg@30", "coverage@20", "popularity@20"]
    assert evaluate(Fixed(model.scores), fold, "precision@30")["precision@30"] == pytest.approx(1 / 30)
    with pytest.raises(ParameterError, match="Write precision@30"):
        evaluate(model, fold, "precision@31")


def test_a_model_that_was_trained_on_what_it_is_to_find_is_said_so():
    """Also where all of its users are some of many; but not new users, though a third of them are like a known one."""
    X = msweb()[:6000]
    strong, by_user = Split.strong(X), Split.per_user(X)
    remembered, honest = Popularity().fit(X), Popularity().fit(strong.train)
    earlier = Popularity().fit(by_user.train)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(honest, strong.test, "hit@5")
        evaluate(earlier, by_user.valid, "hit@5")
        evaluate(Popularity().fit(by_user.test.fold_in), by_user.test, "hit@5")
    for model, fold in ((remembered, strong.test), (remembered, by_user.valid), (honest, Fold(*cut_of(strong.train)))):
        with pytest.warns(ElbowroomWarning, match="were in training"):
            evaluate(model, fold, "hit@5")


def cut_of(matrix):
    return cut(matrix[:500], 0.3, np.random.default_rng(0), 1)


@pytest.mark.parametrize(
    ("name", "words"),
    [("recall@20", "two definitions"), ("ndgc@10", "Did you mean 'ndcg'"), ("ndcg", "NAME@K"), ("ndcg@0", "NAME@K")],
)
def test_a_metric_must_say_what_it_is(name, words):
    with pytest.raises(ParameterError, match=words):
        evaluate(Fixed(np.ones((1, 3))), Fold(sparse.csr_matrix((1, 3)), sparse.csr_matrix(np.eye(1, 3))), [name])


def test_a_fold_without_hidden_items_is_refused():
    with pytest.raises(DataError, match="held-out items"):
        evaluate(Fixed(np.ones((1, 3))), Fold(sparse.csr_matrix((1, 3)), sparse.csr_matrix((1, 3))))


# ---- the best of many ------------------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 6000), st.integers(1, 9), st.booleans(), st.integers(0, 9))
def test_the_best_are_those_of_a_sort(rows, columns, n, coarse, seed):
    scores = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    if coarse:
        scores = scores.round()
        scores[scores > 1] = -math.inf
    n = min(n, columns)
    values, at = best(scores, n)
    assert torch.equal(values, scores.sort(-1, descending=True).values[:, :n])
    assert torch.equal(scores.gather(1, at), values)
    assert all(len(set(row)) == n for row in at.tolist())


def test_ties_go_to_the_lower_column():
    values, columns = in_order(torch.tensor([[1.0, 2.0, 1.0, 2.0]]), torch.tensor([[9, 7, 3, 5]]), 3)
    assert columns.tolist() == [[5, 7, 3]]
    assert values.tolist() == [[2, 2, 1]]


# ---- baselines -------------------------------------------------------------------------------------------------------


def test_ease_is_its_closed_form():
    X = matrix(60, 20, 0.3)
    dense = X.toarray().astype(float)
    inverse = np.linalg.inv(dense.T @ dense + 3 * np.eye(20))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    scores = EASE(3.0).fit(X)._score(X[:7])
    assert np.allclose(scores.numpy(), dense[:7] @ weights, atol=1e-4)


def test_item_knn_is_the_cosine_of_users():
    X = matrix(60, 20, 0.3, high=99)  # without ties
    dense = X.toarray().astype(float)
    norms = np.linalg.norm(dense, axis=0)
    near = dense.T @ dense / (np.outer(norms, norms) + 2.0)
    np.fill_diagonal(near, 0)
    near[near < -np.sort(-near, 1)[:, [4]]] = 0  # the five nearest of each item
    scores = ItemKNN(5, 2.0).fit(X, Reading(counts=True))._score(X[:7])
    assert np.allclose(scores.numpy(), dense[:7] @ near, atol=1e-4)


def test_baselines_choose_their_settings_on_validation():
    """The best of the grid on users for validation; EASE then has the figure of the benchmark's table."""
    split = Split.strong(msweb(), random_state=0)
    scores = {
        value: evaluate(EASE(value).fit(split.train), split.valid, "ndcg@10")["ndcg@10"]
        for value in EASE.grid["regularisation"]
    }
    chosen = EASE.choose(split.train, split.valid, "ndcg@10")
    assert chosen.regularisation == max(scores, key=scores.get) == 50
    assert evaluate(chosen, split.test, "ndcg@10")["ndcg@10"] == pytest.approx(0.5744, abs=1e-4)


def test_a_comparison_chooses_the_settings_of_baselines():
    """On validation users where there are some; else on some of the training's, and then it fits on all of these."""
    split = Split.strong(msweb()[:4000], held_out=400)
    model, metrics = Popularity().fit(split.train), ["coverage@10", "ndcg@10"]
    chosen, (_, near, ease), words = side_by_side(model, split.test, metrics, split.valid)
    assert list(chosen) == ["Popularity", "ItemKNN", "EASE"]
    assert repr(near) == repr(ItemKNN.choose(split.train, split.valid, "ndcg@10"))
    assert words == f"Settings chosen by ndcg@10 on 400 users: {near!r}, {ease!r}"
    _, (_, near, ease), words = side_by_side(model, split.test, metrics)
    inner = Split.strong(split.train, held_out=int((split.train.getnnz(1) > 1).sum()) // 10)
    assert ease.regularisation == EASE.choose(inner.train, inner.valid, "ndcg@10").regularisation
    assert (ease.known_.matrix != split.train).nnz == 0
    assert "held out of the training" in words
    few = Popularity().fit(matrix(15, 12, 0.5))
    assert "Default settings" in side_by_side(few, Fold(matrix(9, 12, 0.4), matrix(9, 12, 0.4, 1)), ["hit@3"])[2]


def test_baselines_of_counts_and_ratings_see_what_is_there():
    ratings = matrix(60, 20, 0.4, high=5)
    split = Split.strong(ratings, held_out=10, reading=Reading(ratings=True))
    binary = Split.strong(sparse.csr_matrix(ratings > 0), held_out=10)
    for reading in (Reading(ratings=True), Reading(counts=True)):
        found, _, _ = side_by_side(Popularity().fit(split.train, reading), split.test, ["ndcg@5"])
        same, _, _ = side_by_side(Popularity().fit(binary.train), binary.test, ["ndcg@5"])
        assert {name: each["ndcg@5"] for name, each in found.items()} == {
            name: each["ndcg@5"] for name, each in same.items()
        }
    means, (chosen,), _ = side_by_side(RatingMeans().fit(split.train), split.test, ["rmse"], split.valid)
    scores = [
        evaluate(RatingMeans(s).fit(split.train), split.valid, "rmse")["rmse"] for s in RatingMeans.grid["shrinkage"]
    ]
    assert chosen.shrinkage == RatingMeans.grid["shrinkage"][int(np.argmin(scores))]
    assert list(means) == ["RatingMeans"]


@pytest.mark.parametrize("baseline", [Popularity(), ItemKNN(), EASE()])
def test_baselines_recommend_by_the_callers_ids(baseline):
    frame = pd.DataFrame(CLICKS)
    ids, scores = baseline.fit(frame).recommend("b", N=2)
    assert ids.tolist() == [20, -1]
    assert np.isneginf(scores[1])
    assert baseline.recommend([[10]], N=2)[0].shape == (1, 2)
    with pytest.raises(DataError, match="not known"):
        baseline.recommend("z")


def test_ease_needs_a_positive_regularisation():
    with pytest.raises(ParameterError, match="regularisation"):
        EASE(0.0).fit(matrix())


@pytest.mark.parametrize("columns", [[2, 0, 1], [2, 2, 1]])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int8])
def test_a_matrix_out_of_order_is_read_and_left_as_it_is(columns, dtype):
    """Also where an item comes twice: what is summed is a copy."""
    X = sparse.csr_matrix((np.array([1, 2, 100], dtype), np.array(columns), np.array([0, 2, 3])), (2, 3))
    before, places = X.toarray(), X.indices.copy()
    found = Reading(counts=True).learn(X)
    assert np.array_equal(X.indices, places)
    assert np.array_equal(X.toarray(), before)
    assert np.array_equal(found.matrix.toarray(), before)


@pytest.mark.parametrize("threshold", [4.1, np.float64(4.1), np.float32(4.1)])
def test_a_threshold_means_the_same_of_any_dtype_and_order(threshold):
    values = np.array([[4.1, 3], [5, 4.1]])
    out_of_order = sparse.csr_matrix(
        (np.float32([3, 4.1, 4.1, 5]), np.array([1, 0, 1, 0]), np.array([0, 2, 4])), (2, 2)
    )
    frame = pd.DataFrame({"u": [0, 0, 1, 1], "i": [0, 1, 0, 1], "v": values.astype(np.float32).ravel()})
    given = [values, values.astype(np.float32), sparse.csr_matrix(values), out_of_order, frame, frame.astype(float)]
    read = [Reading(threshold=threshold, ratings=True, value="v").learn(each).matrix for each in given]
    assert [each.nnz for each in read] == [3] * 6
    assert all(Reading(threshold=threshold, ratings=True).learn(each).matrix.nnz == 3 for each in read)


def test_what_comes_twice_is_added_up_in_double():
    twice = sparse.coo_matrix((np.array([100, 100], np.int8), ([0, 0], [0, 0])), (2, 2))
    assert Reading(counts=True).learn(twice).matrix.toarray().tolist() == [[200, 0], [0, 0]]


@pytest.mark.parametrize("dtype", [np.float16, ">f4", np.uint8, bool])
def test_dense_interactions_of_any_numbers(dtype):
    assert Reading().learn(np.eye(3).astype(dtype)).matrix.nnz == 3


@pytest.mark.parametrize("X", [np.eye(2, dtype=complex), sparse.coo_array(np.ones(3)), np.ones(3), [[["a"]]]])
def test_what_is_no_matrix_of_numbers_is_refused(X):
    with pytest.raises(DataError, match="must be a sparse matrix"):
        Reading().learn(X)


def test_a_fold_has_no_stored_zeros_and_any_format():
    zeros = sparse.csr_matrix(([1.0, 0.0, 1.0], ([0, 0, 1], [0, 1, 1])), (2, 3))
    fold = Fold(zeros.tocsc(), zeros.tocoo())
    assert (fold.fold_in.nnz, fold.held_out.nnz, zeros.nnz) == (2, 2, 3)
    assert fold.held_out[[0]].nnz == 1


def test_a_test_of_ones_is_taken_as_it_is_whatever_the_threshold():
    X = matrix(20, 10, 0.6, high=5)
    given = sparse.csr_matrix(([1.0, 1.0], ([0, 1], [0, 1])), X.shape)
    assert Split.per_user(X, given, reading=Reading(threshold=4)).test.held_out.nnz == 2
    assert Split.per_user(X, given * 3, reading=Reading(threshold=4)).test.held_out.nnz == 0


def test_a_split_counts_the_users_that_are_evaluated():
    X = sparse.csr_matrix(np.vstack([np.eye(20, 12), np.ones((30, 12))]))  # a single interaction is never held out
    split = Split.per_user(X, share=0.3, valid=0.3, random_state=0)
    assert "30 users for validation, 30 for the test" in str(split)
    assert len(evaluate(Popularity().fit(split.train), split.test, "ndcg@5").users) == 30


def test_held_out_items_in_the_history_are_left_out():
    fold_in = sparse.csr_matrix(np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 0], [0, 0, 1, 1]]))
    held_out = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]])
    oracle = Fixed(held_out.astype(float))
    with pytest.warns(ElbowroomWarning, match=r"^4 held-out interactions are .* \(first: user 0, item 0\)"):
        assert evaluate(oracle, Fold(fold_in, held_out), "recall@1[plain]")["recall@1[plain]"] == 1
    with pytest.raises(DataError, match="it has none"), pytest.warns(ElbowroomWarning):
        evaluate(oracle, Fold(fold_in, fold_in))


def test_a_metric_may_be_named_twice_or_alone():
    X = matrix(40, 12, 0.4)
    model, fold = Popularity().fit(X), Fold(X[:20], X[20:])
    assert evaluate(model, fold, ["ndcg@5", "ndcg@5"])["ndcg@5"] == evaluate(model, fold, "ndcg@5")["ndcg@5"]
    double = Fold(fold.fold_in.astype(np.float64), fold.held_out.astype(np.float64))
    assert evaluate(EASE().fit(X), double, "hit@5")["hit@5"] >= 0


def test_what_a_matrix_becomes_later_changes_nothing():
    X = matrix(20, 10, 0.4)
    found = Reading().learn(X)
    before = found.matrix.toarray()
    X.data[::2] = 0
    X.eliminate_zeros()
    X.indices[:] = 0
    assert np.array_equal(found.matrix.toarray(), before)
