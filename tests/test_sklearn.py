"""scikit-learn's contract: its own checks, those that `check_estimator` leaves out, and the tools around it."""

from __future__ import annotations

import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_digits, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from elbowroom import CountVAE, ImageVAE, TableVAE
from elbowroom.beta.policies import Warmup
from elbowroom.objectives.bounds import Iwae

EXPECTED_FAILURES: dict[str, str] = {}
OTHER_SETTINGS = [
    {"epochs": 2, "covariance": "full", "prior": "vamp:components=7", "hidden": ()},
    {"epochs": 3, "objective": "iwae:draws=3", "gated": True, "prior": "mixture:components=5", "average": False},
    {"epochs": 6, "objective": "elbo:free_bits=0.1", "patience": 1, "validation_fraction": 0.3, "batch_size": 7},
    {"epochs": 2, "likelihood": "gaussian:scale=shared", "beta": "cyclical:cycles=2", "covariance": "full"},
    {"epochs": 2, "likelihood": "student_t", "beta": Warmup(end=2.0), "n_latents": 1, "activation": "tanh"},
    {"epochs": 2, "objective": Iwae(2), "beta": 0, "precision": "bfloat16", "hidden": [5], "learning_rate": 0.1},
]
ESTIMATORS = [
    TableVAE(),
    CountVAE(),
    *(kind(**settings) for kind in (TableVAE, CountVAE) for settings in OTHER_SETTINGS),
]
NOT_CALLED_BY_CHECK_ESTIMATOR = [
    "check_dataframe_column_names_consistency",
    "check_get_feature_names_out_error",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_inplace_ensure_writeable",
    "check_param_validation",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
]
IMAGES = load_digits().images[:60]
WINE = load_wine().data


def small_images(**settings: object) -> ImageVAE:
    return ImageVAE(3, channels=(4,), hidden=(8,), epochs=2, random_state=0, **settings)


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=lambda estimator: EXPECTED_FAILURES)
def test_checks_of_scikit_learn(estimator: object, check: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.mark.parametrize("name", NOT_CALLED_BY_CHECK_ESTIMATOR)
@pytest.mark.parametrize("kind", [TableVAE, CountVAE])
@pytest.mark.filterwarnings("ignore:likelihood gaussian")
@pytest.mark.filterwarnings("ignore:X (has|does not have)")
def test_checks_that_check_estimator_does_not_call(kind: type, name: str) -> None:
    if not hasattr(estimator_checks, name):
        pytest.skip(f"this scikit-learn has no {name}")
    getattr(estimator_checks, name)(kind.__name__, kind(epochs=2))


@pytest.mark.parametrize("kind", [TableVAE, ImageVAE, CountVAE])
def test_every_parameter_is_kept_as_given_and_has_a_constraint(kind: type) -> None:
    values = {name: object() for name in kind().get_params()}
    estimator = kind(**values)
    assert all(getattr(estimator, name) is value for name, value in values.items())
    assert set(vars(estimator)) == set(values) == set(kind._parameter_constraints)


@pytest.mark.parametrize("kind", [TableVAE, ImageVAE, CountVAE])
def test_the_first_parameter_alone_is_positional(kind: type) -> None:
    assert kind(3).n_latents == 3
    with pytest.raises(TypeError, match="positional"):
        kind(3, 1.0)
    with pytest.raises(TypeError, match="n_latent"):
        kind(n_latent=3)


def test_estimators_are_compared_by_identity_and_are_hashable() -> None:
    a, b = TableVAE(3), TableVAE(3)
    assert a != b
    assert len({a, b}) == 2
    assert repr(a) == "TableVAE(n_latents=3)"


def test_set_output_names_the_latents() -> None:
    frame = pd.DataFrame(WINE, columns=load_wine().feature_names, index=np.arange(len(WINE)) + 7)
    latents = TableVAE(2, epochs=2).set_output(transform="pandas").fit_transform(frame)
    assert list(latents.columns) == ["latent0", "latent1"]
    assert list(latents.index) == list(frame.index)


# ---- ImageVAE, whose data check_estimator does not have


def test_image_estimator_clones_and_pickles() -> None:
    model = small_images(body="residual", binarize="sample")
    copy = clone(model)
    assert copy is not model
    assert copy.get_params() == model.get_params()
    model.fit(IMAGES)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.transform(IMAGES), model.transform(IMAGES))
    np.testing.assert_array_equal(clone(model).fit(IMAGES).transform(IMAGES), model.transform(IMAGES))


def test_image_estimator_sets_parameters() -> None:
    model = small_images().set_params(channels=(2, 3), binarize="threshold")
    assert model.get_params()["channels"] == (2, 3)
    assert model.fit(IMAGES).likelihood_ == "bernoulli"
    with pytest.raises(ValueError, match="Invalid parameter 'channel' for estimator ImageVAE"):
        model.set_params(channel=(2, 3))


@pytest.mark.parametrize("kind", [TableVAE, ImageVAE, CountVAE])
@pytest.mark.parametrize(
    ("method", "data"),
    [
        *((name, IMAGES) for name in ("transform", "reconstruct", "score", "score_samples", "sample_posterior")),
        *((name, IMAGES) for name in ("distortion_and_rate", "log_likelihood", "diagnose")),
        ("inverse_transform", np.zeros((2, 3))),
        ("sample", 2),
        ("get_feature_names_out", None),
        ("save", "folder"),
    ],
)
def test_not_fitted(kind: type, method: str, data: object) -> None:
    with pytest.raises(NotFittedError, match=f"This {kind.__name__} instance is not fitted yet"):
        getattr(kind(), method)(data)


def test_a_fit_that_fails_leaves_no_model_behind() -> None:
    model = TableVAE(2, epochs=2).fit(WINE)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(np.full((5, 3), np.nan))
    with pytest.raises(NotFittedError):
        model.transform(WINE)


def test_image_tags_say_what_it_takes() -> None:
    tags = get_tags(ImageVAE())
    assert tags.input_tags.three_d_array
    assert not tags.input_tags.two_d_array
    assert not tags.input_tags.sparse
    assert get_tags(CountVAE()).input_tags.sparse
    assert get_tags(CountVAE()).input_tags.positive_only
    assert get_tags(TableVAE()).transformer_tags.preserves_dtype == ["float64", "float32"]


def test_image_feature_names_are_those_of_the_latents() -> None:
    names = small_images().fit(IMAGES).get_feature_names_out()
    assert names.tolist() == ["latent0", "latent1", "latent2"]


# ---- the tools around it


def test_grid_search_over_beta_compares_models_at_beta_one() -> None:
    X = StandardScaler().fit_transform(WINE)
    search = GridSearchCV(TableVAE(2, epochs=40, random_state=0), {"beta": [1.0, 1000.0]}, cv=2, error_score="raise")
    search.fit(X)
    assert search.best_params_ == {"beta": 1.0}
    by_hand = cross_val_score(TableVAE(2, epochs=40, random_state=0, beta=1000.0), X, cv=2)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"][1], by_hand.mean())
    assert search.score(X) == search.best_estimator_.score_samples(X).mean()


def test_pipeline_in_the_middle_and_at_the_end() -> None:
    X, y = load_wine(return_X_y=True)
    classify = make_pipeline(StandardScaler(), TableVAE(4, epochs=60, random_state=0), LogisticRegression())
    assert classify.fit(X, y).score(X, y) > 0.9
    model = make_pipeline(StandardScaler(), TableVAE(4, epochs=60, random_state=0)).fit(X)
    assert np.isfinite(model.score(X))
    errors = model.inverse_transform(model.transform(X)) - X
    assert (errors.var(0) < 1.2 * X.var(0)).all()
    assert (errors.var(0) / X.var(0)).mean() < 0.7


def test_pickle_and_joblib_keep_every_bit(tmp_path: object) -> None:
    model = CountVAE(3, epochs=2, random_state=0).fit(load_digits().data[:50])
    joblib.dump(model, tmp_path / "model.joblib")
    X = load_digits().data[50:80]
    for again in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib")):
        np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
        np.testing.assert_array_equal(again.sample(3, random_state=1), model.sample(3, random_state=1))
        assert again.history_.records == model.history_.records


def test_fits_in_other_processes_give_the_same_bits() -> None:
    models = [TableVAE(2, epochs=3, random_state=seed) for seed in (0, 1)]
    there = joblib.Parallel(n_jobs=2)(joblib.delayed(fit_and_encode)(clone(model)) for model in models)
    here = [fit_and_encode(clone(model)) for model in models]
    np.testing.assert_array_equal(there, here)
    assert not np.array_equal(here[0], here[1])


def fit_and_encode(model: TableVAE) -> np.ndarray:
    import torch

    torch.set_num_threads(1)
    return model.fit(WINE).transform(WINE)


def test_context_is_routed_by_scikit_learn() -> None:
    batch = np.arange(len(WINE)) % 2
    with sklearn.config_context(enable_metadata_routing=True):
        model = TableVAE(2, epochs=2).set_fit_request(context=True).set_score_request(context=True)
        search = GridSearchCV(model, {"beta": [1.0]}, cv=2, error_score="raise").fit(WINE, context=batch)
    assert np.isfinite(search.best_score_)
