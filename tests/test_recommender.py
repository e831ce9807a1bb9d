"""InteractionVAE: what it recommends, to whom, and what it keeps."""

from __future__ import annotations

import copy
import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from forging import file_of, forge
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from small import matrix

import elbowroom
from elbowroom import EASE, Fold, InteractionVAE, Popularity, RatingMeans, Reading, Split, evaluate
from elbowroom.cli.app import run
from elbowroom.data.datasets import msweb
from elbowroom.data.sparse import SparseBatch
from elbowroom.distributions.items import Items
from elbowroom.errors import ArtefactError, DataError, ElbowroomWarning, ParameterError
from elbowroom.likelihoods.items import FEW_RATINGS
from elbowroom.persistence import artefact
from elbowroom.tasks.recommend.graph_filter import Neighbours, neighbours_of
from elbowroom.tasks.recommend.metrics import gain
from elbowroom.tasks.recommend.scoring import different
from elbowroom.tasks.recommend.spectral_init import leading
from elbowroom.training.checkpoints import Checkpoints
from elbowroom.utils.randomness import seed_of

SMALL = {"n_latents": 3, "hidden": (8,), "epochs": 4, "batch_size": 16, "random_state": 0}
CLICKS = matrix(60, 25, 0.25)
FRAME = pd.DataFrame({"user": [f"u{i:02}" for i in CLICKS.tocoo().row], "item": CLICKS.tocoo().col + 100})


def vae(**options) -> InteractionVAE:
    return InteractionVAE(**{**SMALL, **options})


@pytest.fixture(scope="module")
def model() -> InteractionVAE:
    return vae(learning_rate=3e-3, epochs=20).fit(CLICKS)


@pytest.fixture(scope="module")
def named() -> InteractionVAE:
    return vae().fit(FRAME)


# ---- where training starts -------------------------------------------------------------------------------------------


def test_the_leading_directions_are_those_of_the_normalised_interactions():
    clicks = CLICKS.toarray() > 0
    users, items = np.maximum(clicks.sum(1), 1), np.maximum(clicks.sum(0), 1)
    normalised = clicks / np.sqrt(users)[:, None] / np.sqrt(items)
    _, sizes, exact = np.linalg.svd(normalised, full_matrices=False)
    found = leading(CLICKS, 24, 0).numpy()[:, :6]  # of so small a matrix all are found, and exact
    np.testing.assert_allclose(np.abs(exact[:6] @ (found * np.sqrt(items)[:, None])), np.eye(6), atol=1e-3)
    history = clicks / np.sqrt(users)[:, None]  # a row of length 1, as the encoder sees it
    np.testing.assert_allclose(np.linalg.norm(history @ found, axis=0), sizes[:6], rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"tied": True}, {"gated": True}, {"hidden": (40,)}])
def test_tables_of_items_start_there(options):
    """A learning rate of next to nothing leaves them where they started."""
    model = vae(learning_rate=1e-12, average=False, **options).fit(CLICKS).model_
    width = min(24, *model.encoder.hidden)
    wanted = leading(CLICKS, model.likelihood.width, seed_of(0, "spectrum")).numpy()
    for table in (model.encoder.layers[0].inner.weight, model.likelihood.table):
        found = table.detach().numpy()[:, :width]
        np.testing.assert_allclose(found / np.linalg.norm(found), wanted / np.linalg.norm(wanted), atol=1e-6)


def test_it_may_start_at_random():
    drawn = vae(init="random", learning_rate=1e-12, average=False).fit(CLICKS).model_.likelihood.table.detach()
    assert torch.linalg.matrix_rank(drawn) == 8
    assert abs(float(drawn.std()) * np.sqrt(3 * 8) - 1) < 0.2


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_play_counts(likelihood, tmp_path):
    plays = matrix(60, 25, 0.25, high=40)
    model = vae(likelihood=likelihood, counts=True, epochs=20, learning_rate=3e-3).fit(plays)
    assert model.likelihood_ == likelihood
    losses = model.history_["distortion"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model")
    again = elbowroom.load(tmp_path / "model")
    for one, other in zip(model.recommend([0, 5], N=4), again.recommend([0, 5], N=4), strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.sample(7, random_state=0).shape == (7, 25)
    with pytest.raises(ParameterError, match="Set counts=True"):
        vae(likelihood=likelihood).fit(CLICKS)


def rated(users: int = 300, items: int = 40, seed: int = 0) -> pd.DataFrame:
    """Half-star ratings between 0.5 and 5: the item's quality, the user's taste in one of two directions, chance."""
    random = np.random.default_rng(seed)
    user, item = np.nonzero(random.random((users, items)) < 0.4)
    taste, kind = random.choice([-1, 1], users), random.choice([-1, 1], items)
    stars = (
        2.75 + 0.5 * random.normal(size=items)[item] + taste[user] * kind[item] + 0.3 * random.normal(size=len(user))
    )
    return pd.DataFrame({"user": user, "item": item, "stars": np.clip(np.round(2 * stars) / 2, 0.5, 5)})


def test_ratings_are_predicted(tmp_path):
    """Closer to held-out ratings than the item's mean, and nearly as close as chance allows."""
    frame, options = rated(), {"ratings": True, "value": "stars", "init": "random"}
    held_out = np.random.default_rng(1).random(len(frame)) < 0.1
    model = vae(**options, n_latents=2, epochs=150, learning_rate=1e-2).fit(frame[~held_out])
    assert model.likelihood_ == "ratings"
    assert model.likelihood_reason_ == "ratings of some of the items"
    ids, scores = model.recommend(model.users_, N=40, filter_already_liked_items=False)
    table = np.empty(ids.shape)
    np.put_along_axis(table, ids, scores, 1)
    test = frame[held_out]
    means = frame[~held_out].groupby("item")["stars"].mean()
    ours = np.sqrt(np.mean((table[test["user"], test["item"]] - test["stars"]) ** 2))
    theirs = np.sqrt(np.mean((means[test["item"]].to_numpy() - test["stars"]) ** 2))
    assert ours < 0.5 * theirs
    model.save(tmp_path / "model")
    again = elbowroom.load(tmp_path / "model")
    history = frame[~held_out & (frame["user"] == 3)]
    as_dict = dict(zip(history["item"], history["stars"], strict=True))
    for one, other in zip(model.recommend(3, N=4), again.recommend([as_dict], N=4), strict=True):
        np.testing.assert_array_equal(one, other[0])
    items, stars = again.explain(as_dict, 5)
    assert sorted(items) == sorted(as_dict)
    assert np.isfinite(stars).all()
    assert np.isfinite(again.recommend([{}], N=3)[1]).all()
    with pytest.raises(ParameterError, match="who rates what"):
        again.sample(3)


def test_errors_of_ratings_are_those_on_held_out_ratings(monkeypatch):
    """By their definitions, with each user's held-out ratings predicted from the others."""
    options = {"ratings": True, "value": "stars", "init": "random"}
    model = vae(**options, n_latents=2, epochs=60, learning_rate=1e-2)
    split = Split.strong(rated(), held_out=30, reading=model.reading)
    model.fit(split.train)
    found = evaluate(model, split.test, ["rmse", "ndcg@5", "mae"])
    assert list(found.values) == ["rmse", "ndcg@5", "mae"]
    held_out = split.test.held_out
    dicts = [dict(zip(row.indices.tolist(), row.data.tolist(), strict=True)) for row in split.test.fold_in]
    ids, scores = model.recommend(dicts, N=40, filter_already_liked_items=False)
    table = np.empty(ids.shape)
    np.put_along_axis(table, ids, scores, 1)
    errors = [table[user, row.indices] - row.data for user, row in enumerate(held_out)]
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(np.concatenate(errors) ** 2)), abs=1e-5)
    assert found["mae"] == pytest.approx(np.mean([np.abs(each).mean() for each in errors]), abs=1e-5)
    means = evaluate(RatingMeans().fit(split.train), split.test, ["rmse", "mae"])
    assert found["rmse"] < means["rmse"]
    assert found.compare(means, "mae").difference < 0
    monkeypatch.setattr("elbowroom.tasks.recommend.topk.SCORES", 7 * 40)
    assert evaluate(model, split.test, ["rmse"])["rmse"] == pytest.approx(found["rmse"], abs=1e-6)
    assert gain(model, split.test, "rmse") == pytest.approx(-found["rmse"])
    assert gain(model, split.test, "ndcg@5") == found["ndcg@5"]
    with pytest.raises(ParameterError, match="Write rmse"):
        evaluate(model, split.test, ["rmse@5"])
    for other in (Popularity().fit(split.train, model.reading), vae().fit(CLICKS)):
        with pytest.raises(ParameterError, match=r"of ratings|ratings=True"):
            evaluate(other, split.test, ["rmse"])


def test_what_is_asked_of_ratings_is_checked():
    ratings = matrix(60, 25, 0.4, high=5)
    model = vae(ratings=True, init="random").fit(ratings)
    for each in (model, RatingMeans().fit(ratings)):
        expected = each.expect(ratings[:5], ratings[:5])
        assert len(expected) == ratings[:5].nnz
        for form in ("csc", "coo", "lil"):
            other = ratings[:5].asformat(form)
            order = np.lexsort((ratings[:5].tocoo().col, ratings[:5].tocoo().row))
            assert np.allclose(each.expect(other, sparse.csr_matrix(other)), expected[order], atol=1e-6)
        for wanted in (ratings[:5, :10], ratings[:4], ratings[:5].toarray()):
            with pytest.raises(DataError, match="wanted must be a sparse matrix"):
                each.expect(ratings[:5], wanted)
        with pytest.raises(DataError, match="all held-out values are 1"):
            evaluate(each, Split.strong(ratings, held_out=10, reading=Reading(ratings=True)).test.binary, ["rmse"])
    with pytest.raises(DataError, match="25 items"):
        RatingMeans().fit(ratings).expect(ratings[:5, :10], ratings[:5, :10])
    for shrinkage in (-1, np.nan, np.inf, "a"):
        with pytest.raises(ParameterError, match="shrinkage"):
            RatingMeans(shrinkage).fit(ratings)
    nobody = sparse.block_diag([ratings, sparse.csr_matrix((3, 2))]).tocsr()
    assert np.isfinite(RatingMeans(0.0).fit(nobody).recommend([0, 61], N=3)[1]).all()


def test_centres_of_ratings_are_those_of_all_rows():
    ratings = matrix(3000, 30, 0.3, high=5)
    center = vae(ratings=True, init="random", epochs=1).fit(ratings).model_.likelihood.center.numpy()
    total, known = np.asarray(ratings.sum(0)).ravel(), ratings.getnnz(0)
    mean = ratings.data.mean()
    assert np.allclose(center, mean + (total - known * mean) / (known + FEW_RATINGS), atol=1e-5)


def test_means_of_ratings_are_drawn_to_the_mean_of_all():
    X = sparse.csr_matrix(np.array([[5.0, 3.0, 0.0], [4.0, 0.0, 2.0], [0.0, 1.0, 0.0]]))
    means = RatingMeans(shrinkage=2.0).fit(X)
    items = np.array([1.5 * 2, -1.0 * 2, -1.0]) / np.array([4, 4, 3])  # of 3 on average
    user = (5 - 3 - items[0] + 3 - 3 - items[1]) / 4
    wanted = sparse.csr_matrix(np.array([[0.0, 0.0, 1.0]]))
    assert means.expect(X[[0]], wanted) == pytest.approx(3 + items[2] + user)
    assert means.expect(sparse.csr_matrix((1, 3)), wanted) == pytest.approx(3 + items[2])
    assert means.rank(X[[0]], 2).tolist() == [[2, -1]]


@pytest.mark.parametrize(
    ("options", "frame", "words"),
    [
        ({"ratings": True}, rated(20), "value is None"),
        ({"ratings": True, "value": "stars", "likelihood": "multinomial"}, rated(20), "is for interactions or counts"),
        ({"likelihood": "ratings"}, rated(20), "Set ratings=True"),
        ({"ratings": True, "counts": True, "value": "user"}, rated(20)[20:], "counts and ratings"),
        ({"ratings": True, "value": "stars", "neighbour_weight": 1}, rated(20), "neighbour_weight=0"),
        ({"ratings": True, "value": "stars"}, rated(20).assign(stars=lambda f: f["stars"] - 0.5), "must be positive"),
    ],
)
def test_ratings_that_are_none_are_refused(options, frame, words):
    with pytest.raises((ParameterError, DataError), match=words):
        vae(**options).fit(frame)


def test_a_history_of_ratings_has_some():
    model = vae(ratings=True, value="stars").fit(rated(30))
    with pytest.raises(DataError, match="a rating for each item"):
        model.recommend([[1, 2]])
    with pytest.raises(DataError, match="finite numbers"):
        model.recommend([{1: "good"}])


STARS = pd.DataFrame(
    {
        "user": [0, 0, 0, 1, 1, 1, 2, 2, 2, 2],
        "item": [0, 1, 2, 1, 2, 3, 0, 1, 2, 3],
        "stars": [5, 4, 1, 5, 2, 4, 4, 5, 2, 1.0],
    }
)


def test_a_threshold_is_for_values_and_not_for_what_was_read_already():
    """Lists of ids, folds and what is known are interactions, whatever the threshold; values of a dict are not."""
    model = vae(value="stars", threshold=4, epochs=30).fit(STARS)
    known = model.known_.matrix
    assert known.nnz == 6
    for one, other in zip(model.recommend(0, N=4), model.recommend([[0, 1]], N=4), strict=True):
        np.testing.assert_array_equal(one, other[0])
    np.testing.assert_array_equal(model.recommend([{0: 5, 1: 4, 2: 1}], N=4)[1], model.recommend([[0, 1]], N=4)[1])
    np.testing.assert_array_equal(model.recommend(known, N=4)[1], model.recommend([0, 1, 2], N=4)[1])
    np.testing.assert_array_equal(model.rank(known, 4), model.recommend([0, 1, 2], N=4)[0])
    assert model.explain([0, 1], 3)[0].tolist() != []
    more = model.partial_fit(pd.DataFrame({"user": [0, 3, 3], "item": [3, 0, 1], "stars": [5, 5, 1.0]})).known_.matrix
    assert more.toarray().tolist() == [[1, 1, 0, 1], [0, 1, 0, 1], [1, 1, 0, 0], [1, 0, 0, 0]]


def test_partial_fit_leaves_the_dial_and_the_epochs():
    model = vae(beta="0.05..1", epochs=40).fit(CLICKS).at(0.1)
    model.partial_fit(CLICKS[:3])
    assert model._beta_now == pytest.approx(0.1)
    assert len(model.history_.records) == 4
    model.partial_fit(CLICKS[:3])
    assert len(model.history_.records) == 4


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (CLICKS[:3], "users have ids"),
        ([[101]], "a frame, or a matrix"),
        (pd.DataFrame({"user": [3], "item": [101]}), "ids of users must be strings"),
    ],
)
def test_a_partial_fit_knows_whose_interactions_they_are(X, words):
    model = vae(epochs=1).fit(FRAME)
    with pytest.raises(DataError, match=words):
        model.partial_fit(X)
    assert model.users_.tolist() == sorted(set(FRAME["user"]))


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1, "2", 1e40, None, True])
def test_a_weight_of_neighbours_that_is_none_is_refused(weight):
    model = vae(epochs=1).fit(CLICKS)
    model.neighbour_weight = weight
    with pytest.raises(ParameterError):
        model.recommend([1], N=2)


def test_how_high_somebody_rates_is_seen():
    """Whoever rates all of it high rates the rest high: closer than the items' means, and than their own mean."""
    random = np.random.default_rng(0)
    bias, quality = random.normal(size=500), 0.5 * random.normal(size=30)
    stars = 10 + bias[:, None] + quality + 0.3 * random.normal(size=(500, 30))
    shown = random.random(stars.shape) < 0.4
    X = sparse.csr_matrix(stars * shown)
    model = vae(ratings=True, init="random", epochs=60, learning_rate=1e-2, n_latents=2).fit(X[:400])
    ids, scores = model.recommend(X[400:], N=30, filter_already_liked_items=False)
    found = np.empty(ids.shape)
    np.put_along_axis(found, ids, scores, 1)
    held_out, truth = ~shown[400:], stars[400:]
    own = (truth * ~held_out).sum(1) / (~held_out).sum(1)
    ours, items, theirs = (
        np.sqrt(np.mean((guess - truth)[held_out] ** 2))
        for guess in (found, np.asarray(X[:400].sum(0) / shown[:400].sum(0)), own[:, None])
    )
    assert ours < 0.9 * theirs < items
    assert model.recommend([{3: 11.0}], 1)[1] > model.recommend([{3: 10.5}], 1)[1]


@pytest.mark.parametrize(
    ("history", "words"),
    [
        ([{3: [1, 2], 4: 3.0}], "finite numbers"),
        ([{3: 1e300}], "at most"),
        ([{(1, 2): 3.0}], "integers or strings"),
        ([{2**80: 3.0}], "integers or strings"),
        ([{3: 4.5, "a": 2.0}], "all of one kind"),
        (np.array(1), "users must be ids"),
        (sparse.csr_matrix(np.full((1, 40), np.nan)), "finite"),
    ],
)
def test_histories_that_are_none_are_refused(history, words):
    model = vae(ratings=True, value="stars", epochs=1).fit(rated(30))
    with pytest.raises(DataError, match=words):
        model.recommend(history)


def test_a_dict_is_one_history():
    model = vae(ratings=True, value="stars").fit(rated(30))
    ids, scores = model.recommend({3: 4.5}, N=3)
    assert ids.shape == (3,)
    np.testing.assert_array_equal(scores, model.recommend([{3: 4.5}], N=3)[1][0])
    with pytest.raises(DataError, match="one item"):
        model.explain({3: 4.5}, [3, 6])


def test_fit_transform_is_fit_and_transform():
    np.testing.assert_array_equal(vae().fit_transform(CLICKS), vae().fit(CLICKS).transform(CLICKS))


# ---- the same history, the same list ---------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 59), min_size=1, max_size=8), st.integers(1, 30), st.booleans())
@settings(max_examples=20)
def test_a_history_has_one_list_however_it_is_given(users, n, filtered):
    model = _fitted()
    rows = CLICKS[users]
    ids, scores = model.recommend(users, n, filtered)
    as_matrix = model.recommend(rows, n, filtered)
    as_lists = model.recommend([row.indices.tolist() for row in rows], n, filtered)
    alone = [model.recommend(user, n, filtered) for user in users]
    assert np.array_equal(ids, as_matrix[0])
    assert np.array_equal(ids, as_lists[0])
    assert np.array_equal(ids, np.stack([found[0] for found in alone]))
    assert np.allclose(scores, np.stack([found[1] for found in alone]), atol=1e-6)


_kept: list[InteractionVAE] = []


def _fitted() -> InteractionVAE:
    if not _kept:
        _kept.append(vae(learning_rate=3e-3, epochs=20).fit(CLICKS))
    return _kept[0]


def test_frames_and_lists_of_ids_give_the_same_lists(named):
    users = ["u03", "u11", "u07"]
    ids, _ = named.recommend(users, 5)
    some = FRAME[FRAME["user"].isin(users)].sample(frac=1, random_state=1)
    assert np.array_equal(named.recommend(some, 5)[0], ids[[0, 2, 1]])  # in the order of the ids
    lists = [FRAME["item"][FRAME["user"] == user].tolist() for user in users]
    assert np.array_equal(named.recommend([items[::-1] for items in lists], 5)[0], ids)
    assert set(ids.ravel()) <= set(FRAME["item"])


def test_scores_are_the_log_chances_of_the_model(model):
    """In falling order, and the same as the model's own distribution says."""
    ids, scores = model.recommend(CLICKS, 25, filter_already_liked_items=False)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert np.allclose(np.exp(scores).sum(1), 1, atol=1e-5)
    x = SparseBatch.of(CLICKS)
    full = np.diff(CLICKS.indptr) > 0
    with torch.no_grad():
        log_probs = model.model_.decode(model.model_.encode(x).mean, None, x.sum(keepdim=True)).log_probs.numpy()
    assert np.allclose(np.take_along_axis(log_probs, ids, 1)[full], scores[full], atol=1e-5)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_neighbours_have_a_say_of_their_weight(model, weight):
    """Scores are the model's and the weighted logarithms of the sharpened filter, from its definition, normalised."""
    wide = copy.copy(model)
    wide.neighbour_weight = weight
    dense, histories = CLICKS.toarray(), CLICKS[1:9]
    users, items = (np.maximum(dense.sum(axis), 1) ** -0.5 for axis in (1, 0))
    R = users[:, None] * dense * items
    near, everybody = (x.toarray() @ R.T @ R for x in (histories, CLICKS))
    far, beyond = near @ R.T @ R, everybody @ R.T @ R
    near, far = near + 0.3 * everybody.mean(0), far + 0.3 * beyond.mean(0)
    filtered = np.log(near) - np.log(far) / 2 + 0.1 * np.log(dense.sum(0))
    (ids, scores), (plain_ids, plain) = (
        each.recommend(histories, N=25, filter_already_liked_items=False) for each in (wide, model)
    )
    wanted = np.empty_like(plain)
    np.put_along_axis(wanted, plain_ids, plain, 1)
    wanted += weight * filtered
    wanted -= np.log(np.exp(wanted).sum(1, keepdims=True))
    np.testing.assert_allclose(scores, np.take_along_axis(wanted, ids, 1), atol=1e-4)
    np.testing.assert_array_equal(wide.recommend(histories[3], N=25)[0][0], wide.recommend(histories, N=25)[0][3])
    np.testing.assert_array_equal(wide.recommend([[]], N=25)[0], model.recommend([[]], N=25)[0])
    items, effects = wide.explain([3, 7], 5)
    both, one = (
        dict(zip(*(part[0] for part in wide.recommend([h], 25, filter_already_liked_items=False)), strict=True))
        for h in ([3, 7], [7])
    )
    assert effects[items == 3] == pytest.approx(both[5] - one[5], abs=1e-5)


def test_neighbours_know_nothing_of_items_that_nobody_has():
    """They are last, with a finite score, and so they are for somebody who has one of them alone."""
    clicks = sparse.csr_matrix(np.pad(CLICKS.toarray(), ((0, 3), (0, 2))))
    neighbours = Neighbours(clicks)
    scores = neighbours(clicks)
    assert torch.isfinite(scores).all()
    assert (scores[:, -2:].amax(1) < scores[:, :-2].amin(1)).all()
    alone = sparse.csr_matrix(([1.0], ([0], [26])), (1, 27))
    assert torch.allclose(neighbours(alone), neighbours(sparse.csr_matrix((1, 27))))


def test_a_long_history_is_explained_in_parts(model, monkeypatch):
    history = list(range(12))
    items, effects = model.explain(history, 20)
    monkeypatch.setattr("elbowroom.tasks.recommend.topk.SCORES", 3 * 25)
    parts, same = model.explain(history, 20)
    assert np.array_equal(parts, items)
    np.testing.assert_allclose(same, effects, atol=1e-6)


def test_a_matrix_with_the_columns_that_min_item_left_out_is_told_which_to_give():
    clicks = sparse.hstack([CLICKS, sparse.csr_matrix((60, 5))]).tocsr()
    some = vae(min_item=2).fit(clicks)
    with pytest.raises(DataError, match=r"X\[:, model.items_\]"):
        some.recommend(clicks)
    assert np.array_equal(some.recommend(clicks[:, some.items_])[0], some.recommend(range(60))[0])


def test_what_neighbours_say_of_a_row_depends_on_it_alone(monkeypatch):
    """To the last bit, in whatever company, and in however many parts."""
    neighbours = Neighbours(CLICKS)
    whole = neighbours(CLICKS)
    monkeypatch.setattr("elbowroom.tasks.recommend.graph_filter.AT_ONCE", 7 * max(CLICKS.shape))
    assert torch.equal(neighbours(CLICKS), whole)
    assert all(torch.equal(neighbours(CLICKS[[i]])[0], whole[i]) for i in range(0, CLICKS.shape[0], 5))


def test_neighbours_are_found_once_for_the_interactions_that_are_known(model):
    wide = copy.copy(model)
    wide.neighbour_weight = 1.0
    wide.recommend([[1]])
    found = neighbours_of(wide.known_)
    wide.recommend([[2]])
    assert neighbours_of(wide.known_) is found
    known = copy.copy(wide.known_)
    assert neighbours_of(known) is not found


def test_what_is_liked_is_left_out_and_so_is_what_is_not_asked_for(model):
    ids, scores = model.recommend(CLICKS, 25)
    for row, found, score in zip(CLICKS, ids, scores, strict=True):
        there = found[np.isfinite(score)]
        assert set(there) == set(range(25)) - set(row.indices)
        assert (found[len(there) :] == -1).all()
    assert set(model.recommend([3], 25, items=[1, 2, 3, 4])[0].ravel()) <= {1, 2, 3, 4, -1}
    assert not set(model.recommend([3], 25, exclude=[1, 2])[0].ravel()) & {1, 2}
    everything = model.recommend([3], 25, False)[0][0]
    assert sorted(everything) == list(range(25))


@pytest.mark.parametrize("kind", [np.asarray, lambda X: X.astype(bool), sparse.csr_array, sparse.coo_matrix])
def test_a_matrix_is_one_everywhere(model, kind):
    X = kind(CLICKS.toarray())
    for mine, theirs in (
        (vae(learning_rate=3e-3, epochs=20).fit(X).transform(CLICKS), model.transform(CLICKS)),
        (model.transform(X), model.transform(CLICKS)),
        (model.score_samples(X), model.score_samples(CLICKS)),
        (model.rank(X, 5), model.rank(CLICKS, 5)),
        (model.recommend(X, 5), model.recommend(range(60), 5)),
        (model.explain(kind(CLICKS[[1]].toarray()), 4), model.explain(1, 4)),
        (Fold(X, X).held_out.toarray(), CLICKS.toarray()),
        (copy.deepcopy(model).partial_fit(X).known_.matrix.toarray(), CLICKS.toarray()),
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_lists_of_lists_are_histories_whatever_their_lengths(model):
    """Also a square of zeros and ones, and one of as many as there are items: ids."""
    alike = [[0, 1], [1, 0]], [{0: 1, 1: 1}, {1: 1, 0: 1}], [{0, 1}, {1, 0}], [np.array([0, 1]), np.array([1.0, 0.0])]
    for histories in alike:
        np.testing.assert_array_equal(model.recommend(histories, 3)[0], model.recommend([[0, 1]] * 2, 3)[0])
    everything = [list(range(25)), [0] * 25]
    ids = model.recommend(everything, 24)[0]
    assert (ids[0] == -1).all()
    assert sorted(ids[1]) == list(range(1, 25))


def test_an_id_is_one_however_it_is_written(model, named):
    ids, scores = model.recommend(7, 4)
    for same in (7.0, np.int8(7), np.float32(7)):
        np.testing.assert_array_equal(model.recommend(same, 4)[1], scores)
        np.testing.assert_array_equal(model.recommend([same], 4)[0][0], ids)
        np.testing.assert_array_equal(model.similar_items(same, 3)[0], model.similar_items(7, 3)[0])
        np.testing.assert_array_equal(model.explain([same, 3], np.float64(4))[0], model.explain([7, 3], 4)[0])
        assert same not in model.recommend(3, 25, exclude=same)[0]
    np.testing.assert_array_equal(named.recommend(np.str_("u03"), 4)[0], named.recommend("u03", 4)[0])
    with pytest.raises(DataError, match="not known"):
        model.recommend("7")


def test_every_user_may_have_items_to_leave_out(model):
    exclude = [[0, 1, 2], [], [24]]
    ids = model.recommend([4, 5, 6], 25, False, exclude=exclude)[0]
    for row, out, user in zip(ids, exclude, [4, 5, 6], strict=True):
        everything = model.recommend(user, 25, False)[0]
        assert row.tolist() == [i for i in everything if i not in out] + [-1] * len(out)
    as_matrix = np.zeros((3, 25))
    for row, out in enumerate(exclude):
        as_matrix[row, out] = 7
    for same in (as_matrix, sparse.csr_array(as_matrix), [set(out) for out in exclude]):
        np.testing.assert_array_equal(model.recommend([4, 5, 6], 25, False, exclude=same)[0], ids)
    assert model.recommend(4, 25, False, exclude=[[0, 1]])[0].shape == (25,)


def test_lists_are_as_long_as_is_asked_for(model):
    """Where there are not so many items, the rest is -1."""
    for recommender in (model, EASE().fit(CLICKS)):
        ids, scores = recommender.recommend([3, 4], 40, False)
        assert ids.shape == scores.shape == (2, 40)
        assert np.array_equal(np.sort(ids[:, :25]), np.tile(np.arange(25), (2, 1)))
        assert (ids[:, 25:] == -1).all()
        assert np.isneginf(scores[:, 25:]).all()
        assert recommender.rank(CLICKS[:2], 40).shape == (2, 40)
    assert model.similar_items(3, 40)[0].shape == (25,)


def test_somebody_without_a_history_gets_what_the_model_expects(model):
    ids, scores = model.recommend([[], [1, 2]], 25)
    assert np.isfinite(scores[0]).all()
    assert np.allclose(np.exp(scores[0]).sum(), 1, atol=1e-5)
    assert np.array_equal(ids[0], model.recommend([[]], 25)[0][0])
    seen = np.asarray(CLICKS.sum(0)).ravel()
    by_popularity = pd.Series(-scores[0], index=ids[0]).sort_index().rank().corr(pd.Series(-seen).rank())
    assert by_popularity > 0.5


def test_unknown_items_are_reported_or_refused(named):
    with pytest.warns(ElbowroomWarning, match="2 items are not known"):
        ids, _ = named.recommend([[101, 102, 7, 8]], 5)
    assert np.array_equal(ids, named.recommend([[101, 102]], 5)[0])
    strict = copy.copy(named).set_params(unknown_items="refuse")
    with pytest.raises(DataError, match="not known"):
        strict.recommend([[101, 7]], 5)


@pytest.mark.parametrize(
    ("users", "words"),
    [
        ("nobody", "not known"),
        (["u01", "nobody"], "not known"),
        (3, "not known"),
        (3.5, "integers or strings"),
        (None, "users must be ids"),
        ([["u01"], 3], "among ids"),
        (sparse.csr_matrix((2, 3)), "3 columns"),
        (pd.DataFrame({"user": ["u01"]}), "a column of users and one of items"),
    ],
)
def test_users_that_are_none_are_refused(named, users, words):
    with pytest.raises((DataError, ParameterError), match=words):
        named.recommend(users)


@pytest.mark.parametrize("n", [0, -1, 2.5, "ten", True])
def test_a_number_of_items_that_is_none_is_refused(model, n):
    with pytest.raises(ParameterError, match="N must be"):
        model.recommend([1], n)


def test_draws_from_the_posterior_differ_and_can_be_repeated(model):
    a, b, c = (model.recommend(CLICKS, 10, thompson=True, random_state=seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_an_explanation_is_the_difference_that_an_item_makes(model):
    history = [2, 5, 9, 11]
    items, effects = model.explain(history, 20)
    assert sorted(items) == history
    assert (np.diff(effects) <= 0).all()

    def score(rows):
        ids, scores = model.recommend([rows], 25, filter_already_liked_items=False)
        return scores[0][ids[0].tolist().index(20)]

    for item, effect in zip(items, effects, strict=True):
        assert np.isclose(effect, score(history) - score([i for i in history if i != item]), atol=1e-5)
    one, effect = model.explain([2], 20)  # without it there is no history: what the model expects of anybody
    assert one.tolist() == [2]
    assert np.isclose(effect[0], score([2]) - score([]), atol=1e-5)
    with pytest.raises(DataError, match="not known"):
        model.explain([2], 99)


def test_an_item_is_most_like_itself(model):
    ids, cosines = model.similar_items(7, 5)
    assert ids[0] == 7
    assert np.isclose(cosines[0], 1)
    assert (np.diff(cosines) <= 1e-6).all()
    assert model.similar_items([7, 8], 3)[0].shape == (2, 3)


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tied": True, "hidden": (8, 4)},
        {"likelihood": "multinomial:sampled=9"},
        {"norm": True, "residual": True, "hidden": (8, 8), "activation": "silu"},
        {"gated": True, "dropout": 0.0},
        {"beta": "0.05..2"},
        {"beta": "perrow:gamma=0.02,cap=1"},
        {"beta": "targetrate:nats=1", "epochs": 8},
        {"objective": "iwae:draws=3"},
        {"prior": "vamp:components=4"},
        {"prior": "composite", "beta": "perrow:gamma=0.05"},
        {"prior": "mixture:components=4", "covariance": "full"},
        {"counts": True, "validation_fraction": 0.2, "patience": 3},
        {"precision": "bfloat16"},
    ],
)
def test_every_kind_of_model_trains_recommends_and_is_saved(options, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ElbowroomWarning)
        fitted = vae(**options).fit(CLICKS)
    again = vae(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ElbowroomWarning)
        again.fit(CLICKS)
    ids, scores = fitted.recommend(CLICKS, 5)
    assert np.array_equal(again.recommend(CLICKS, 5)[1], scores)  # the same seed, the same bits
    assert np.isfinite(fitted.score(CLICKS))
    fitted.save(tmp_path / "model")
    loaded = elbowroom.load(tmp_path / "model")
    for found in (loaded, pickle.loads(pickle.dumps(fitted))):
        assert np.array_equal(found.recommend(CLICKS, 5)[0], ids)
        assert np.array_equal(found.recommend([0, 1], 5)[1], fitted.recommend([0, 1], 5)[1])
        assert np.array_equal(found.transform(CLICKS), fitted.transform(CLICKS))
    if options.get("tied"):
        assert loaded.model_.encoder.layers[0].inner.weight is loaded.model_.likelihood.table


def test_fit_reads_and_leaves_no_global_randomness():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = vae(likelihood="multinomial:sampled=9").fit(CLICKS)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    b = vae(likelihood="multinomial:sampled=9").fit(CLICKS)
    assert np.array_equal(a.transform(CLICKS), b.transform(CLICKS))


def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """With what draws in training: dropout and sampled items."""
    options = {"likelihood": "multinomial:sampled=9", "tied": True}
    whole = vae(**options).fit(CLICKS)

    class Killed(BaseException):
        pass

    saves = []
    usual = Checkpoints.save

    def save(self, step, *rest):
        usual(self, step, *rest)
        saves.append(step)
        if len(saves) == 6:
            raise Killed

    monkeypatch.setattr(elbowroom.training.checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(Killed):
        vae(**options).fit(CLICKS, checkpoint=tmp_path / "run")
    monkeypatch.setattr(Checkpoints, "save", usual)
    resumed = vae(**options).fit(CLICKS, checkpoint=tmp_path / "run")
    assert 0 < saves[-1] < resumed.history_.records[-1]["step"]
    for a, b in zip(whole.model_.state_dict().values(), resumed.model_.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_training_sees_no_other_data_than_the_histories(model):
    """A column nobody has keeps its place; an id of a user is no feature."""
    wide = sparse.hstack([CLICKS, sparse.csr_matrix((60, 3))]).tocsr()
    fitted = vae().fit(wide)
    assert fitted.n_features_in_ == 28
    assert fitted.recommend([0], 28)[0].shape == (1, 28)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden": ()}, "hidden layer"),
        ({"dropout": 1.0}, "dropout"),
        ({"likelihood": "bernouli"}, "likelihood must be one of"),
        ({"likelihood": "multinomial:sampled=-1"}, "sampled"),
        ({"likelihood": "multinomial:width=3"}, "width"),
        ({"unknown_items": "ignore"}, "unknown_items"),
        ({"min_user": 0}, "min_user"),
        ({"tied": "yes"}, "tied"),
        ({"beta": "perrow:gama=1"}, "gama"),
    ],
)
def test_bad_parameters_are_refused(options, words):
    with pytest.raises((ParameterError, DataError), match=words):
        vae(**options).fit(CLICKS)


def test_clone_and_params():
    assert clone(vae(tied=True)).get_params() == vae(tied=True).get_params()


# ---- new interactions ------------------------------------------------------------------------------------------------


def test_partial_fit_adds_users_and_interactions(named):
    model = copy.deepcopy(named)
    before = model.transform(["u01"])
    new = pd.DataFrame({"user": ["new", "new", "u01"], "item": [101, 105, 103]})
    model.partial_fit(new, epochs=2)
    assert "new" in model.users_
    assert len(model.users_) == len(named.users_) + 1
    history = model.known_.matrix[list(model.users_).index("new")]
    assert model.items_[history.indices].tolist() == [101, 105]
    assert 103 not in model.recommend("u01", 25)[0]
    assert not np.array_equal(model.transform(["u01"]), before)
    assert model.epochs == named.epochs
    assert len(model.history_) == 2
    assert clone(model).get_params() == clone(named).get_params()
    with pytest.warns(ElbowroomWarning, match="1 item is not known"):
        model.partial_fit(pd.DataFrame({"user": ["u01"], "item": [7]}), epochs=1)
    assert model.n_features_in_ == named.n_features_in_


def test_partial_fit_of_a_matrix_adds_rows():
    model = vae().partial_fit(CLICKS)  # the first one is a fit
    model.partial_fit(sparse.vstack([CLICKS, CLICKS[[1]]]).tocsr(), epochs=1)
    assert len(model.users_) == 61
    assert (model.known_.matrix[:60] != CLICKS).nnz == 0


def test_a_partial_fit_that_fails_leaves_the_model(model):
    other = copy.deepcopy(model)
    with pytest.raises(DataError):
        other.partial_fit(sparse.csr_matrix((2, 3)))
    assert np.array_equal(other.recommend(CLICKS)[0], model.recommend(CLICKS)[0])


# ---- choosing and saving ---------------------------------------------------------------------------------------------


def test_a_range_is_picked_by_a_metric():
    split = Split.strong(CLICKS, held_out=10)
    model = vae(beta="0.01..1").fit(split.train)
    betas = [0.01, 0.1, 1.0]
    found = {beta: evaluate(model.at(beta), split.valid, ["ndcg@5"])["ndcg@5"] for beta in betas}
    assert model.pick(split.valid, "ndcg@5", betas) == max(found, key=found.get)
    assert model.pick(split.valid, lambda m, fold: -abs(np.log(m._beta_now / 0.1)), betas) == 0.1
    assert model.pick(split.valid.fold_in, "elbo", betas) in betas
    assert len(model.curve(split.valid.fold_in).betas) == 13


@pytest.mark.parametrize("break_it", ["users.ends", "items.ids", "values", "columns", "gone", "not listed"])
def test_broken_interactions_in_a_saved_model_are_refused(named, tmp_path, break_it):
    path = named.save(tmp_path / "model")

    def edit(_, files):
        tensors = safetensors.torch.load(files[artefact.DATA])
        tensors[break_it] = tensors[break_it].flip(0) - 5
        files[artefact.DATA] = safetensors.torch.save(tensors)

    if break_it == "gone":
        file_of(path, artefact.DATA).unlink()
    else:
        forge(path, edit if break_it != "not listed" else lambda _, files: files.pop(artefact.DATA))
    with pytest.raises(ArtefactError):
        elbowroom.load(path)


def test_samples_are_histories(model):
    drawn = model.sample(50, random_state=0)
    assert drawn.shape == (50, 25)
    assert (drawn.data == np.floor(drawn.data)).all()
    totals = np.asarray(drawn.sum(1)).ravel()
    assert totals.max() <= CLICKS.sum(1).max()
    assert (model.sample(50, random_state=0) != drawn).nnz == 0


def test_samples_look_like_what_was_trained_on(model):
    """Everything counts once: each item once, and as many as training users have."""
    drawn = model.sample(2000, random_state=0)
    assert set(drawn.data) == {1}
    assert drawn.dtype == np.float32
    sizes, trained = np.diff(drawn.indptr), np.diff(CLICKS.indptr)
    assert set(sizes) <= set(trained)
    assert abs(sizes.mean() - trained.mean()) < 5 * trained.std() / np.sqrt(2000) + 0.5  # of 101 quantiles
    counts = vae(counts=True).fit(CLICKS).sample(200, random_state=0)
    assert counts.data.max() > 1


def test_different_items_are_drawn_one_after_the_other():
    """The chances of pairs from an urn, without replacement, by their formula."""
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    n = 20_000
    p = Items(torch.zeros(n, 1), torch.zeros(4, 1), chances.log(), torch.full((n, 1), 2.0))
    drawn = different(p, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.sum(1), torch.full((n,), 2.0))
    a, b = chances[:, None], chances[None]
    exact = (a * b / (1 - a) + a * b / (1 - b)).fill_diagonal_(0)
    found = (drawn.mT @ drawn / n).fill_diagonal_(0)
    assert ((found - exact).abs() <= 5 * (exact * (1 - exact) / n).sqrt()).all()


# ---- it learns -------------------------------------------------------------------------------------------------------


def test_it_learns_what_goes_together():
    """Two groups of items, two groups of users: after some of one group, the others of it come first."""
    random = np.random.default_rng(0)
    group = random.integers(0, 2, 300)
    chance = np.where(np.arange(30) < 15, 0.5, 0.02)
    dense = random.random((300, 30)) < np.where(group[:, None] == 0, chance, chance[::-1])
    model = vae(epochs=60, learning_rate=1e-2, beta=0.1).fit(sparse.csr_matrix(dense.astype(np.float32)))
    low, high = model.recommend([[0, 3, 7], [20, 25, 29]], 8)[0]
    assert (low < 15).all()
    assert (high >= 15).all()


def test_it_is_ahead_of_popularity_on_real_clicks():
    split = Split.strong(msweb()[:6000], held_out=500)
    model = InteractionVAE(
        n_latents=20, hidden=(64,), beta=0.05, dropout=0.3, learning_rate=5e-3, epochs=15, random_state=0
    ).fit(split.train)
    found, popular = (evaluate(m, split.test, ["ndcg@10"]) for m in (model, Popularity().fit(split.train)))
    ahead = found.compare(popular, "ndcg@10")
    assert ahead.difference > 5 * ahead.standard_error
    assert EASE().fit(split.train).rank(split.test.fold_in, 3).shape == (500, 3)


# ---- the page and the command line -----------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.2, "0.05..1"])
def test_the_page_shows_lists_metrics_and_popularity(beta, tmp_path):
    pytest.importorskip("matplotlib")
    split = Split.strong(CLICKS, held_out=10)
    model = vae(beta=beta).fit(split.train)
    page = model.report(split.test, tmp_path / "page.html").read_text()
    for word in ("Recommendations", "Popularity", "ItemKNN", "EASE", "recall@20[plain]", "Users and their lists"):
        assert word in page
    assert "by neighbours" not in page
    model.neighbour_weight = 2.0
    assert "by neighbours with a weight of 2" in model.report(split.test, tmp_path / "page.html").read_text()
    assert ("Over beta" in page) == isinstance(beta, str)
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert model.report(CLICKS, tmp_path / "other.html").exists()


def test_the_command_line_has_errors_of_ratings(tmp_path, capsys):
    rated().to_csv(tmp_path / "stars.csv", index=False)
    settings = ("--value", "stars", "--ratings", "--n-latents", 2, "--hidden", 8, "--epochs", 5)
    answer(capsys, "fit", tmp_path / "stars.csv", "--kind", "interactions", *settings, "--out", tmp_path / "model")
    found = answer(capsys, "evaluate", tmp_path / "model", tmp_path / "stars.csv", "--metrics", "rmse,mae,ndcg@5")
    assert list(found["metrics"]) == ["InteractionVAE", "RatingMeans"]
    assert found["metrics"]["RatingMeans"]["metric"] == ["rmse", "mae", "ndcg@5"]
    assert all(0 < value < 2 for value in found["metrics"]["InteractionVAE"]["mean"])


def test_the_command_line_says_what_was_trained_on_and_chosen(tmp_path, capsys):
    FRAME.to_csv(tmp_path / "all.csv", index=False)
    FRAME[FRAME["user"] < "u50"].to_csv(tmp_path / "train.csv", index=False)
    FRAME[FRAME["user"] >= "u50"].to_csv(tmp_path / "new.csv", index=False)
    some = FRAME[(FRAME["user"] < "u50") & (FRAME["item"] < 120)]
    some.to_csv(tmp_path / "part.csv", index=False)  # users that are known, without some of their interactions
    vae(epochs=1).fit(pd.read_csv(tmp_path / "train.csv")).save(tmp_path / "model")
    notes = {}
    for name in ("all", "train", "part", "new"):
        facts = answer(capsys, "evaluate", tmp_path / "model", tmp_path / f"{name}.csv", "--metrics", "ndcg@5")
        assert facts["baselines"].startswith("Settings chosen by ndcg@5 on 4 users held out of the training")
        notes[name] = "were in training" in " ".join(facts.get("notes", []))
    assert notes == {"all": True, "train": True, "part": True, "new": False}
    facts = answer(capsys, "recommend", tmp_path / "model", "-n", 10**9, "--out", tmp_path / "lists.csv")
    lists = pd.read_csv(tmp_path / "lists.csv")
    known = len(some["user"].unique())
    assert len(lists) == known * FRAME["item"].nunique() - (FRAME["user"] < "u50").sum()


def answer(capsys, *words):
    code = run([*map(str, words), "--json"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, ""), err
    return json.loads(out)


def test_the_command_line_fits_recommends_and_evaluates(tmp_path, capsys):
    split = Split.strong(CLICKS, held_out=10)
    train = FRAME[FRAME["user"] < "u50"]
    train.to_csv(tmp_path / "train.csv", index=False)
    FRAME[FRAME["user"] >= "u50"].to_parquet(tmp_path / "new.parquet")
    model = tmp_path / "model"
    quick = ["--epochs", 2, "--hidden", 8, "--n-latents", 2, "--random-state", 0, "--no-verbose"]
    facts = answer(capsys, "fit", tmp_path / "train.csv", "--out", model, *quick)
    assert facts["estimator"] == "InteractionVAE"  # its first columns are called user and item
    facts = answer(capsys, "recommend", model, tmp_path / "new.parquet", "-n", 3, "--out", tmp_path / "lists.csv")
    lists = pd.read_csv(tmp_path / "lists.csv")
    fitted = elbowroom.load(model)
    assert list(lists.columns) == ["user", "item", "rank", "score"]
    assert facts["users"] == lists["user"].nunique()
    history = FRAME["item"][FRAME["user"] == "u55"].tolist()
    known = [item for item in history if item in fitted.items_]
    assert lists["item"][lists["user"] == "u55"].tolist() == fitted.recommend([known], 3)[0][0].tolist()
    answer(capsys, "recommend", model, "--out", tmp_path / "all.parquet")
    assert pd.read_parquet(tmp_path / "all.parquet")["user"].nunique() == train["user"].nunique()
    one = answer(capsys, "recommend", model, "--user", "u03", "-n", 2)
    assert one["lists"]["item"] == fitted.recommend("u03", 2)[0].tolist()
    facts = answer(capsys, "evaluate", model, tmp_path / "new.parquet", "--metrics", "ndcg@5,recall@5[min]")
    assert set(facts["metrics"]) == {"InteractionVAE", "Popularity", "ItemKNN", "EASE"}
    new = pd.DataFrame({"user": ["u03", "u04"], "item": fitted.recommend(["u03", "u04"], 1)[0][:, 0]})
    new.to_csv(tmp_path / "next.csv", index=False)
    facts = answer(capsys, "evaluate", model, tmp_path / "next.csv", "--known", "--metrics", "hit@1")
    assert facts["metrics"]["InteractionVAE"]["mean"] == [1.0]
    facts = answer(capsys, "encode", model, tmp_path / "new.parquet", "--out", tmp_path / "z.csv")
    assert facts["shape"][1] == 2
    assert pd.read_csv(tmp_path / "z.csv")["row"].tolist() == sorted(FRAME["user"][FRAME["user"] >= "u50"].unique())
    facts = answer(capsys, "sample", model, "-n", 4, "--out", tmp_path / "made.csv", "--random-state", 0)
    made = pd.read_csv(tmp_path / "made.csv")
    assert len(made) == facts["interactions"] > 0
    assert list(made.columns) == ["user", "item"]
    assert set(made["item"]) <= set(fitted.items_)
    assert made["user"].max() < 4
    FRAME.assign(stars=5).rename(columns={"item": "film"}).to_csv(tmp_path / "stars.csv", index=False)
    liked = ["--item", "film", "--value", "stars", "--threshold", 4]
    answer(capsys, "fit", tmp_path / "stars.csv", "--kind", "interactions", "--out", tmp_path / "m3", *liked, *quick)
    answer(capsys, "sample", tmp_path / "m3", "--out", tmp_path / "made.csv")
    facts = answer(capsys, "recommend", tmp_path / "m3", tmp_path / "made.csv")  # it reads what it wrote
    assert facts["users"] > 4
    sparse.save_npz(tmp_path / "clicks.npz", split.train)
    facts = answer(capsys, "fit", tmp_path / "clicks.npz", "--kind", "interactions", "--out", tmp_path / "m2", *quick)
    assert facts["estimator"] == "InteractionVAE"
    answer(capsys, "recommend", tmp_path / "m2", tmp_path / "clicks.npz", "--out", tmp_path / "lists.tsv")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["recommend", "{table}", "--out", "x.csv"], "TableVAE"),
        (["recommend", "{model}", "--user", "nobody"], "not known"),
        (["recommend", "{model}", "--out", "x.npy"], "table of ids"),
        (["recommend", "{model}", "-n", "0"], "N must be"),
        (["evaluate", "{model}", "{data}", "--known"], "new interactions"),
        (["sample", "{model}", "--out", "x.npy"], "table of ids"),
        (["sample", "{model}", "--out", "x.csv", "--mean"], "Leave out"),
        (["recommend", "{model}", "gone.csv"], "does not exist"),
        (["recommend", "{model}", "{data}", "--user", "u01"], "has users too"),
        (["recommend", "{model}", "--beta", "0.5"], "range"),
        (["evaluate", "{model}", "{data}", "--metrics", "recall@20"], "two definitions"),
        (["evaluate", "{model}", "{data}", "--fold-in", "2"], "fold-in"),
        (["report", "{model}", "{data}", "--out", "r.html", "--labels", "user"], "labels"),
        (["fit", "{data}", "--out", "x", "--item", "itme"], "Did you mean 'item'"),
    ],
)
def test_wrong_commands_are_told_in_one_line(words, part, tmp_path, capsys, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    named.save("model")
    elbowroom.TableVAE(n_latents=1, epochs=1, hidden=(4,)).fit(np.random.default_rng(0).normal(size=(30, 2))).save("t")
    FRAME.to_csv("data.csv", index=False)
    names = {"table": "t", "model": "model", "data": "data.csv"}
    assert run([word.format(**names) for word in words]) in (1, 2)
    err = capsys.readouterr().err
    assert part in err
    assert len(err.strip().splitlines()) == 1


def test_a_fold_can_hold_users_without_anything():
    X = sparse.csr_matrix((3, 25), dtype=np.float32)
    held_out = sparse.csr_matrix(np.eye(3, 25, dtype=np.float32))
    found = evaluate(_fitted(), Fold(X, held_out), ["ndcg@5"])
    assert len(found.users) == 3
