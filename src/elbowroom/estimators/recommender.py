"""InteractionVAE: recommendations, where a row is a user (Liang et al. 2018, Mult-VAE)."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from elbowroom.beta.policies import Beta
from elbowroom.data import validation
from elbowroom.data.dataset import InteractionRows, Rows, evenly
from elbowroom.data.interactions.matrix import Interactions
from elbowroom.data.interactions.reading import Reading
from elbowroom.data.interactions.splits import Fold
from elbowroom.data.io.writers import check_file_place
from elbowroom.errors import DataError, ParameterError
from elbowroom.estimators.base import BaseVAE
from elbowroom.likelihoods import auto
from elbowroom.likelihoods.items import ITEM_LIKELIHOODS
from elbowroom.models.vae import VAE
from elbowroom.nn.layers import check_widths
from elbowroom.nn.mlp import MLP
from elbowroom.tasks.recommend import lists as task
from elbowroom.tasks.recommend.graph_filter import neighbours_of
from elbowroom.tasks.recommend.metrics import gain
from elbowroom.tasks.recommend.scoring import Scoring, different, widened
from elbowroom.tasks.recommend.spectral_init import start_at_spectrum
from elbowroom.tasks.recommend.topk import users_at_once
from elbowroom.utils import specs
from elbowroom.utils.constraints import Interval, StrOptions
from elbowroom.utils.randomness import drawing_from, generator_at, resolve_seed, seed_of
from elbowroom.utils.settings import standard_defaults

SPECTRAL = 30_000  # users whose interactions the tables of items start from


@dataclass(eq=False, repr=False, match_args=False)
class InteractionVAE(BaseVAE):
    """A variational autoencoder for interactions: it recommends items to known and new users.

    X is a matrix (users, items), sparse or an array, or a pandas, polars or pyarrow frame with a row for each
    interaction and any ids; its values are read as `Reading` describes. A row of the model is a user's history. Only
    the scores of a batch are dense.

    Parameters are those of `TableVAE`, and these.

    Parameters
    ----------
    likelihood : str
        "multinomial" (the default): which items a user's next events are about. With many items,
        "multinomial:sampled=8192" trains on a sample of them in each step. For play counts (`counts=True`)
        "negative_binomial", whose means are a user's total times the items' shares, or "poisson". With ratings
        (`ratings=True`) "auto" means "ratings": the values, Gaussian with an error for each item.
    dropout : float
        Share of a history that is dropped from the encoder's input in training.
    tied : bool
        Share one table of items between the encoder's first and the decoder's last layer.
    init : str
        Initialisation of the tables of items: "spectral", the leading singular vectors of the interactions (Shen et
        al. 2021), or "random".
    norm, residual : bool
        Layer norm, and skip connections around hidden layers.
    neighbour_weight : float
        Weight in lists of the neighbours of a history's items, added to the model (Shen et al. 2021): 0 for none, 4 is
        good with many items. It is not used in training, so that it may be set afterwards.
    user, item, value : str or None
        Columns of a frame: by default found by their names, else the first and the second column, and no values.
    threshold : float or None
        Interactions with values below this, summed over a user's rows of an item, are left out, negative ones too.
    counts, ratings : bool
        Keep the values of X as counts, or as ratings. By default every interaction counts once, and without a threshold
        values other than 1 (and 0, for none) are refused.
    min_user, min_item : int
        Users and items with fewer interactions are left out.
    unknown_items : str
        What to do about unknown items in histories: "warn" ignores them with a warning, "refuse" raises.

    Attributes
    ----------
    users_, items_ : array
        The ids of the training data.

    Examples
    --------
    >>> from scipy.sparse import random
    >>> from elbowroom import InteractionVAE
    >>> X = random(200, 50, 0.1, format="csr", random_state=0) > 0
    >>> model = InteractionVAE(n_latents=4, hidden=(16,), epochs=5, random_state=0).fit(X)
    >>> ids, scores = model.recommend([0, 1], N=3)
    >>> ids.shape
    (2, 3)
    """

    n_latents: int = 200
    _: KW_ONLY
    beta: float | str | Beta = 0.2
    hidden: Sequence[int] = (600,)
    activation: str = "tanh"
    batch_size: int = 500
    learning_rate: float = 1e-3
    validation_fraction: float = 0.0
    dropout: float = 0.5
    tied: bool = False
    init: str = "spectral"
    norm: bool = False
    residual: bool = False
    neighbour_weight: float = 0.0
    user: str | None = None
    item: str | None = None
    value: str | None = None
    threshold: float | None = None
    counts: bool = False
    ratings: bool = False
    min_user: int = 1
    min_item: int = 1
    unknown_items: str = "warn"

    _scored_in: ClassVar[torch.dtype] = torch.float32  # float64 tables of items would be most of the memory
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseVAE._parameter_constraints,
        **Reading._parameter_constraints,
        **{name: ["boolean"] for name in ("tied", "norm", "residual")},
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "init": [StrOptions({"spectral", "random"})],
        "neighbour_weight": [Interval(Real, 0, 100, closed="both")],
        "unknown_items": [StrOptions({"warn", "refuse"})],
    }

    # ---- what interactions decide ----------------------------------------------------------------------------------

    @property
    def reading(self) -> Reading:
        """How X is read."""
        return Reading(**{field.name: getattr(self, field.name) for field in fields(Reading)})

    @property
    def users_(self) -> np.ndarray:
        """Ids of the known users."""
        return self.known_.users.ids

    @property
    def items_(self) -> np.ndarray:
        """Ids of the items."""
        return self.known_.items.ids

    def _read(self, X: Any, reset: bool) -> Any:
        if not reset:
            return task.histories(X, self.known_, self.reading, self.unknown_items == "refuse")[0]
        self.known_: Interactions = X if isinstance(X, Interactions) else self.reading.learn(X)
        self.n_features_in_ = len(self.known_.items)
        return self.known_.matrix

    def _rows(self, x: Any, context: np.ndarray | None) -> Rows:
        if not x.shape[0]:
            raise DataError("there must be users", "there are none", "Pass at least one history.")
        return InteractionRows(x)

    @property
    def _usual(self) -> tuple[str, str]:
        """The likelihood that "auto" stands for, and the reason."""
        if self.ratings:
            return "ratings", "ratings of some of the items"
        return "multinomial", "which items the next events of a user fall on"

    def _choose(self, facts: auto.Facts) -> auto.Choice:
        return auto.Choice(*self._usual)

    def _choose_likelihood(self, rows: Rows) -> tuple[nn.Module, str | dict[str, list[int]], str]:
        wanted = str(self.likelihood)
        text, why = self._usual if wanted == "auto" else (wanted, "as asked for")
        name, options = specs.parse(text, ITEM_LIKELIHOODS, "likelihood")
        self._check_values(name)
        with drawing_from(generator_at(self.seed_, "items")):
            likelihood = specs.make(
                text, ITEM_LIKELIHOODS, "likelihood", rows.features, self._widths[0], bool(self.tied)
            )
        return likelihood, specs.text_form(name, options), why

    def _check_values(self, likelihood: str) -> None:
        """Refuse a likelihood that does not suit the kept values."""
        kept = [name for name in ("counts", "ratings") if getattr(self, name)]
        wanted = {"multinomial": [[], ["counts"]], "ratings": [["ratings"]]}.get(likelihood, [["counts"]])
        if kept not in wanted:
            raise ParameterError(
                f"likelihood={likelihood!r} is for {' or '.join(w[0] if w else 'interactions' for w in wanted)}",
                f"what is kept of X is its {' and '.join(kept) or 'interactions, each counting once'}",
                f"Set {wanted[0][0]}=True, and no other." if wanted[0] else "Set likelihood='auto'.",
            )

    @property
    def _widths(self) -> tuple[int, ...]:
        """Widths of the hidden layers: the first is that of the tables of items."""
        if widths := check_widths("hidden", self.hidden):
            return widths
        raise ParameterError("a model of interactions has a hidden layer", "hidden is empty", "Write hidden=(600,).")

    def _encoder(self, inputs: int, context: int, code: int) -> nn.Module:
        first = {"sparse": True, "dropout": float(self.dropout)} | self._layers
        return MLP(inputs, self._widths, None, context=context, code=code, skip_beta=0, **first)

    def _decoder(self, outputs: int, context: int, code: int) -> nn.Module:
        return MLP(self.n_latents, self._widths[::-1], None, context=context, code=code, skip_beta=-1, **self._layers)

    @property
    def _layers(self) -> dict[str, Any]:
        """What the hidden layers of encoder and decoder have in common."""
        options = {name: bool(getattr(self, name)) for name in ("gated", "norm", "residual")}
        return {"activation": self.activation, **options}

    def _dtype(self, values: Any) -> torch.dtype:
        return self._scored_in

    def _begin(self, model: VAE, rows: Any) -> None:
        if self._start is None and self.init == "spectral":
            start_at_spectrum(model, rows.take(evenly(len(rows), SPECTRAL)).matrix, seed_of(self.seed_, "spectrum"))
        super()._begin(model, rows)

    # ---- fit -------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, *, checkpoint: str | os.PathLike[str] | None = None) -> Self:  # type: ignore[override]
        """Train on interactions X, a sparse matrix (users, items) or a frame with a row for each.

        `checkpoint` is a folder: if it holds a run with these settings and data, that run is continued.

        Raises
        ------
        DataError, ParameterError, TrainingError
            If the data or a parameter is invalid, or the training diverges.
        """
        return super().fit(X, y, checkpoint=checkpoint)

    def partial_fit(self, X: Any, y: Any = None, *, epochs: int | None = None) -> Self:
        """Add new interactions X, of known and of new users, and continue training from the current weights.

        A frame is matched by its ids; row i of a matrix adds to user i, and further rows are new users. Unknown items
        are ignored with a warning: they need a `fit`. By default, `epochs` is a tenth of those of `fit`.
        """
        if not hasattr(self, "model_"):
            return self.fit(X)
        longer = copy.copy(self)
        longer.epochs = max(1, self.epochs_ // 10) if epochs is None else validation.positive("epochs", epochs)
        longer._start = self.model_.state_dict()  # type: ignore[misc]
        new = self._read(X, reset=False)
        users = task.users_to_add(X, new, self.known_, self.reading)
        BaseVAE.fit(longer, self.reading.more(self.known_, users, new))
        if longer.model_.conditioning is not None:  # beta stays as it is
            longer.model_ = longer.model_.at(self._beta_now)
        del longer._start
        longer.epochs, longer.epochs_ = self.epochs, self.epochs_
        self.__dict__.update(longer.__dict__)
        return self

    # ---- tasks -----------------------------------------------------------------------------------------------------

    def recommend(
        self,
        users_or_histories: Any,
        N: int = 10,
        filter_already_liked_items: bool = True,
        items: Any = None,
        exclude: Any = None,
        *,
        thompson: bool = False,
        random_state: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The N best items for users, as ids and scores (n, N), or (N,) for one user's id.

        Parameters
        ----------
        users_or_histories : id, ids, matrix, frame of interactions, or list of lists (or dicts) of item ids
            Known users by their ids, or histories of any users; the same history gives the same list. A matrix is
            sparse, or an array of two axes, and has a column for every item of the model; a list of lists holds ids. A
            user without a history gets scores by p(item) under the prior.
        items : id or list of item ids, optional
            The items to choose among, for all users.
        exclude : id, list of item ids, list of a list for each user, or matrix (n, items), optional
            The items to leave out.
        thompson : bool
            Draw z from the posterior instead of taking its mean (Thompson sampling), for exploration.

        Returns
        -------
        ids, scores : arrays
            A score is the log-probability that the next event is about the item, in nats; for ratings, the expected
            one. If fewer than N items are left, ids are -1 (or empty texts) and scores minus infinity.
        """
        check_is_fitted(self)
        refuse = self.unknown_items == "refuse"
        rows, alone = task.histories(users_or_histories, self.known_, self.reading, refuse)
        n = validation.positive("N", N)
        only = None if items is None else task.positions_of(items, self.known_, refuse)
        without = None if exclude is None else task.excluded(exclude, self.known_, rows.shape[0], refuse)
        filtered = validation.flag("filter_already_liked_items", filter_already_liked_items)
        drawn = validation.flag("thompson", thompson)
        noise = generator_at(resolve_seed(random_state), "thompson") if drawn else None
        found = self._lists(rows, n, filtered, only, without, noise)
        return task.named(found, self.items_, alone)

    def rank(self, histories: Any, n: int) -> np.ndarray:
        """Positions (users, n) of the best items that are not in histories, a matrix (users, items); -1 for none."""
        check_is_fitted(self)
        return self._lists(self._read(histories, reset=False), n, True, None, None, None).positions

    def expect(self, histories: Any, wanted: Any) -> np.ndarray:
        """Expected ratings (m,) of what CSR rows `wanted` (users, items) store, given CSR histories (users, items)."""
        check_is_fitted(self)
        if not self.ratings:
            raise ParameterError("expected ratings need a model of ratings", "ratings=False", "Set ratings=True.")
        rows = self._read(histories, reset=False)
        return self._scoring().at(rows, task.asked(wanted, *rows.shape))

    def _lists(
        self, rows: Any, n: int, filter_liked: bool, only: Any, without: Any, noise: torch.Generator | None
    ) -> task.Lists:
        scoring = self._scoring(noise)
        return task.lists(scoring, rows, n, filter_liked, only, without, scoring.exact)

    def _scoring(self, noise: torch.Generator | None = None) -> Scoring:
        self._check_parameters()  # it may have been set after fit
        neighbours = neighbours_of(self.known_) if self.neighbour_weight else None
        return Scoring(widened(self.model_), noise, neighbours, self.neighbour_weight)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.neighbour_weight and (self.ratings or self.neighbour_weight != self.neighbour_weight):
            got = f"neighbour_weight={self.neighbour_weight}, ratings={self.ratings}"
            raise ParameterError(
                "neighbour_weight must be a number, and 0 with ratings", got, "Set neighbour_weight=0."
            )

    def similar_items(self, item: Any, N: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The N items nearest to an item, or all if there are fewer; the item itself is first.

        Returns
        -------
        ids, cosines : arrays (N,), or (n, N) of a list of items
            Cosines are those of rows of the decoder's table.
        """
        check_is_fitted(self)
        n, at = validation.positive("N", N), task.positions_of(item, self.known_, refuse=True)
        table = nn.functional.normalize(self.model_.likelihood.table.detach(), dim=-1)  # type: ignore[operator]
        best = (table @ table[at].mT).T.topk(min(n, len(table)), -1)
        ids, cosines = self.items_[best.indices.numpy()], best.values.numpy()
        return (ids[0], cosines[0]) if np.ndim(item) == 0 else (ids, cosines)

    def explain(self, history: Any, item: Any) -> tuple[np.ndarray, np.ndarray]:
        """The effect of each item of a history on the score of another item: ids and effects, the strongest first.

        The effect of an item is exact: the score of `item` with the whole history, less that without it.
        `history` is a known user's id, a list of item ids, a dict of these to values, or a matrix of one row.
        """
        check_is_fitted(self)
        row = task.one_history(history, self.known_, self.reading)
        without = sparse.vstack([row, task.without_each(row)]).tocsr()
        found = self._scoring().of_item(without, task.one_position(item, self.known_))
        effects = found[0] - found[1:]
        order = np.argsort(-effects, kind="stable")
        return self.items_[row.indices[order]], effects[order]

    def pick(  # type: ignore[override]
        self,
        X: Any,
        task: str | Callable[[Self, Any], float] = "ndcg@100",
        betas: Sequence[float] | None = None,
    ) -> float:
        """The beta of the range that is best for a task: a metric such as "ndcg@100" on a `Fold`, or as `BaseVAE.pick`.

        A fold's held-out interactions are predicted from those shown; use `split.valid`, never `split.test`.
        """
        if isinstance(X, Fold) and isinstance(task, str):
            return super().pick(X, lambda model, fold: gain(model, fold, task), betas)
        return super().pick(X, task, betas)

    def report(self, X: Any, path: str | os.PathLike[str] = "report.html") -> Path:  # type: ignore[override]
        """Write one self-contained HTML page: metrics beside the baselines, popularity, some users and their lists.

        X is a `Fold` such as `split.test`, or interactions of users that were not in training, of which a fifth is
        then held out.
        """
        from elbowroom.estimators.recommender_reporting import (
            summarise_lists,  # imported here: figures need matplotlib, an optional dependency
        )

        check_is_fitted(self)
        check_file_place(place := validation.path_of(path, "path"))
        summarise_lists(self, X).write(place)
        return place

    @standard_defaults()
    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> Any:  # type: ignore[override]
        """New histories: z from the prior, then as many events as a training user has; a CSR matrix (n, items).

        With `counts=True` the events are drawn independently, and an item may occur more than once. Otherwise they are
        like the training rows: as many different items as a training user has, drawn from p(item|z) without
        replacement.
        """
        check_is_fitted(self)
        n = validation.positive("n_samples", n_samples)
        generator = generator_at(resolve_seed(random_state), "sample")
        size = users_at_once(self.n_features_in_)
        with torch.no_grad():
            parts = [self._drawn(min(size, n - start), generator) for start in range(0, n, size)]
        return sparse.vstack(parts).tocsr()

    def _drawn(self, n: int, generator: torch.Generator) -> Any:
        model: Any = self.model_
        z, total = model.prior_distribution().sample(n, generator), model.likelihood.draw_total(n, generator)
        p = model.decode(z, None, total)
        return sparse.csr_matrix((p.sample(generator) if self.counts else different(p, generator)).numpy())

    def _write(self, values: Tensor, like: Any = None) -> np.ndarray:
        return values.numpy()
