"""Runs: beside a model in the making, MODEL.run holds the settings and the checkpoints, until the model is saved."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, get_args

from elbowroom._version import __version__
from elbowroom.cli.console import SIGNALLED, Answer, signal_of
from elbowroom.cli.model_info import describe, facts_of
from elbowroom.cli.options import Kind
from elbowroom.data.interactions.reading import Reading
from elbowroom.data.io.readers import Data, nearest, read, split_key
from elbowroom.data.io.writers import check_place
from elbowroom.data.streams import read_text, status
from elbowroom.errors import ArtefactError, ElbowroomError, ParameterError, warn
from elbowroom.estimators.sweep_folder import is_sweep
from elbowroom.persistence.artefact import is_free, is_model
from elbowroom.persistence.estimator import name_features
from elbowroom.utils.devices import keep_all_memory
from elbowroom.utils.files import delete_folder, folder_at_once, held, parse_json, write_atomically
from elbowroom.utils.signals import Stopped

if TYPE_CHECKING:
    from elbowroom.estimators.base import BaseVAE

SETTINGS = "run.json"


@dataclass(frozen=True)
class Run:
    """The settings of a run; paths are absolute."""

    file: str
    out: str
    kind: str
    labels: list[str]
    parameters: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where the checkpoints are."""
        return Path(f"{self.out}.run")

    def save(self) -> None:
        """Make the folder, with the settings in it, at one stroke: of two processes that try, one does."""
        settings = {"format": "elbowroom run", "version": __version__, **asdict(self)}
        try:
            with folder_at_once(self.folder) as fresh:
                write_atomically(fresh / SETTINGS, json.dumps(settings, indent=1))
        except OSError as error:
            if self.folder.exists():
                raise _in_use(self.folder) from error
            raise


def plan(file: str, out: str, kind: str, labels: list[str], parameters: dict[str, Any]) -> Run:
    """The settings of a new run; a seed is drawn where none is given, so that a resumed run is the same run."""
    path, key = split_key(file)
    file = f"{path.absolute()}:{key}" if key else str(path.absolute())
    schema = str(parameters.get("schema", ""))
    if schema.endswith(".json"):  # a run keeps what the file says
        parameters = parameters | {"schema": _schema_of(Path(schema))}
    return Run(file, str(Path(out).absolute()), kind, labels, {"random_state": secrets.randbits(31)} | parameters)


def _schema_of(path: Path) -> Any:
    text = read_text(path, "a schema as JSON")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        do = """Write {"age": "count"} to it."""
        raise ParameterError("a schema is a JSON file", f"{path} can not be read ({error})", do) from error


def check_model_place(out: str, overwrite: bool) -> None:
    """Refuse a place for a model that is taken, or of which a run is not finished."""
    path, run = Path(out), Path(f"{Path(out).absolute()}.run")
    check_place(path)
    if not is_free(path):
        if not is_model(path):
            raise ParameterError("a model is saved to a new folder", f"{out} is something else", "Choose another name.")
        if not overwrite:
            do = "Add --overwrite to replace it, or choose another name."
            raise ParameterError("a model is saved to a new folder", f"{out} is there", do)
    if not run.exists() or (run.is_dir() and not any(run.iterdir())):
        return
    if not (run / SETTINGS).is_file():
        raise ParameterError("the folder of a run must be new", f"{run} is something else", "Choose another name.")
    if not overwrite:
        do = f"Run: elbowroom resume {typed(run)}, or add --overwrite to begin anew."
        raise ParameterError("there must be no unfinished run of this model", f"{shown(run)} is one", do)


def check_model(model: str) -> None:
    """Refuse a path that can not be a saved model, with a better one where there is one."""
    path = Path(model)
    if not path.exists():
        raise ArtefactError("a model is a folder that fit has saved", f"{model} does not exist", nearest(path))
    if (path / SETTINGS).is_file():
        do = f"Run: elbowroom resume {quote(model)}"
        raise ArtefactError("a model is a folder that fit has saved", f"{model} is a run that has not ended", do)
    if is_sweep(model):
        models = sorted(model.parent for model in path.glob("beta-*/config.json"))
        do = f"Name a model in it{f', such as {models[0]}' if models else ''}, or choose its --beta."
        raise ArtefactError("a model is a folder that fit has saved", f"{model} is a sweep of models", do)


def open_run(folder: str) -> Run:
    """The settings of a run that was begun.

    Raises
    ------
    ArtefactError
        If the folder is not that of a run.
    """
    path = Path(folder) / SETTINGS
    if status(path) is None:
        near = Path(f"{Path(folder).absolute()}.run")
        do = f"Did you mean {shown(near)}?" if (near / SETTINGS).is_file() else "Check the path."
        raise ArtefactError("a run is a folder with a run.json", f"{folder} is none", do)
    text = read_text(path, "the settings of a run")
    try:
        values = parse_json(text.encode())
        kinds = {"file": str, "out": str, "kind": str, "labels": list, "parameters": dict}
        if not all(isinstance(values[name], kind) for name, kind in kinds.items()):
            raise TypeError("its settings are of another kind")
        if not all(isinstance(label, str) for label in values["labels"]):
            raise TypeError("its labels are no texts")
        if values["kind"] not in get_args(Kind):
            raise ValueError(f"its kind is {values['kind']!r}")
        run = Run(**{name: values[name] for name in kinds})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        do = "Train again with elbowroom fit."
        raise ArtefactError(f"{path} must hold the settings of a run", f"it is broken ({error!s:.200})", do) from error
    place = str(Path(folder).absolute())
    if run.folder.resolve() == Path(place).resolve():
        return run
    if not place.endswith(".run"):
        raise ArtefactError(
            "the folder of a run must be called MODEL.run", f"{folder} is not", f"Move it to {folder}.run"
        )
    return replace(run, out=place.removesuffix(".run"))  # it was moved: the model goes beside it


def begin(run: Run, verbose: bool) -> Answer:
    """Train from the start."""
    data, estimator = _prepare(run, verbose)
    if (run.folder / SETTINGS).exists():  # after all checks, for the old run is lost with it
        with locked(run.folder):
            delete_folder(run.folder)
    run.save()
    return _carry_out(run, data, estimator)


def go_on(run: Run, verbose: bool) -> Answer:
    """Train on from the last checkpoint."""
    if not any(run.folder.glob("step-*")):
        warn("no checkpoint was written yet, as is done every 30 s: training begins again", 2)
    return _carry_out(run, *_prepare(run, verbose))


def _prepare(run: Run, verbose: bool) -> tuple[Data, BaseVAE]:
    path, key = split_key(run.file)
    data = read_for(run.kind, f"{shown(path)}:{key}" if key else shown(path), run.labels, run.parameters)
    return data, estimator_of(run, data, verbose)


def read_for(kind: str, source: str, labels: list[str], parameters: Mapping[str, Any]) -> Data:
    """A file for a kind of model with these parameters."""
    reading = Reading(**{name: parameters[name] for name in ("user", "item", "value") if name in parameters})
    return read(source, labels, interactions=None if kind == "auto" else kind == "interactions", reading=reading)


def _carry_out(run: Run, data: Data, estimator: BaseVAE) -> Answer:
    """Train and save the model; a signal saves the model so far and keeps the run."""
    keep_all_memory()  # the process is ours, and ends when the model is saved
    with locked(run.folder):
        try:
            stopped = _fitted(estimator, rows_for(type(estimator).__name__, data), run)
        except BaseException as error:
            if {path.name for path in run.folder.iterdir()} <= {SETTINGS}:
                delete_folder(run.folder)
            elif not isinstance(error, ElbowroomError):
                warn(f"what was trained is kept; go on: elbowroom resume {typed(run.folder)}", 2)
            raise
        name_features(estimator, data.names)
        _save(run, estimator)
        if estimator.history_.complete:
            delete_folder(run.folder)
    return _answer(run, data, estimator, SIGNALLED + signal_of(stopped))


def _fitted(estimator: BaseVAE, rows: Any, run: Run) -> Stopped | None:
    """Fit an estimator, and what stopped it where it has the model so far."""
    try:
        estimator.fit(rows, checkpoint=run.folder)
    except Stopped as stopped:
        if not estimator.__sklearn_is_fitted__():
            raise
        return stopped
    return None


def _save(run: Run, estimator: BaseVAE) -> None:
    """Save the model; where that fails, say that the run has what was trained, if it has."""
    try:
        estimator.save(run.out)
    except BaseException as error:
        kept = f"what was trained is kept; go on: elbowroom resume {typed(run.folder)}"
        if not any(run.folder.glob("step-*")):  # none could be written either
            raise
        if isinstance(error, ArtefactError):
            raise ArtefactError(error.expected, error.got, f"{error.do} {kept[0].upper()}{kept[1:]}") from error
        warn(kept, 2)
        raise


def _answer(run: Run, data: Data, estimator: BaseVAE, stopped: int) -> Answer:
    sizes = {"rows": len(data)}
    if data.interactions:  # a row of the model is a user
        known = estimator.known_.matrix
        sizes = {"rows": known.shape[0], "interactions": known.nnz, "events": len(data)}
    facts = {"model": run.out, "file": data.source, **sizes, **facts_of(run.out)}
    text = describe(facts)
    if facts["complete"]:
        look = f"look at it: elbowroom report {typed(Path(run.out))} {quote(data.source)} --out report.html"
        return Answer(facts, f"{text}\n\nsaved to {shown(Path(run.out))}; {look}")
    facts["run"] = str(run.folder)
    text += f"\n\ninterrupted; the model so far is in {shown(Path(run.out))}; "
    return Answer(facts, f"{text}go on: elbowroom resume {typed(run.folder)}", stopped)


def estimator_of(run: Run, data: Data, verbose: bool) -> BaseVAE:
    """The estimator of a run, not fitted."""
    from elbowroom import CountVAE, ImageVAE, InteractionVAE, TableVAE

    kind = data.kind if run.kind == "auto" else run.kind
    families: dict[str, type[BaseVAE]] = {
        "table": TableVAE,
        "image": ImageVAE,
        "count": CountVAE,
        "interactions": InteractionVAE,
    }
    known = families[kind]().get_params(deep=False)
    parameters = {"verbose": verbose} | run.parameters
    for name in parameters:
        if name not in known:
            flag = f"--{name.replace('_', '-')}"
            owner = next((other for other, family in families.items() if name in family().get_params(deep=False)), "no")
            raise ParameterError(
                f"{flag} is a parameter of {owner} models",
                f"the data is of the kind {kind!r}",
                f"Leave it out, or use --kind {owner}.",
            )
    likelihood = parameters.get("likelihood", "")
    if isinstance(likelihood, str) and likelihood.startswith("{"):
        parameters["likelihood"] = _by_columns(likelihood)
    return families[kind](**parameters)


def _by_columns(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParameterError(
            "a likelihood by columns is JSON", f"{text!r:.60} is not ({error})", """Write '{"gaussian": ["age"]}'."""
        ) from error


def rows_for(estimator: str, data: Data) -> Any:
    """The rows as an estimator wants them: for a table, an AnnData becomes a data frame."""
    return data.x.to_df() if estimator == "TableVAE" and hasattr(data.x, "obsm") else data.x


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run, so that no second process writes to it. The folder itself is what its checkpoints hold."""
    with ExitStack() as stack:
        try:
            stack.enter_context(held(folder / SETTINGS))
        except BlockingIOError:
            raise _in_use(folder) from None
        yield


def _in_use(folder: Path) -> ArtefactError:
    return ArtefactError(
        "a run goes on in one process", f"{shown(folder)} is used by another", "Wait for it, or stop it."
    )


def typed(path: Path) -> str:
    """A path as a shell takes it."""
    return quote(shown(path))


def shown(path: Path) -> str:
    """A path as people would type it: relative where it is below the current folder."""
    try:
        return os.fspath(path.relative_to(Path.cwd()))
    except ValueError:
        return os.fspath(path)
