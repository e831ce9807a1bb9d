"""The flags: the estimators' parameters, with help and defaults as text, so that --help does not import torch.

A parameter that is not given is None here, and the estimator's own default applies. A test compares names,
defaults and choices with the estimators.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter, Token
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Dict

from elbowroom.data.streams import read_text
from elbowroom.errors import DataError

DATA = Group("Data", sort_key=1)
OUTPUT = Group("Output", sort_key=2)
MODEL = Group("Model", sort_key=3)
IMAGES = Group("Model: only images", sort_key=4)
COUNTS = Group("Model: only counts", sort_key=5)
TABLES = Group("Model: only tables", sort_key=6)
INTERACTIONS = Group("Model: only interactions", sort_key=7)
TRAINING = Group("Training", sort_key=7)
OTHER = Group("Other", sort_key=9)

Kind = Literal["auto", "table", "image", "count", "interactions"]


def whole(_: Any, tokens: Sequence[Token]) -> int:
    """A whole number; cyclopts alone would round 1.5."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a whole number") from None


def whole_or_word(_: Any, tokens: Sequence[Token]) -> int | str:
    """A whole number, or a word that the estimator knows."""
    return tokens[0].value if tokens[0].value.isalpha() else whole(_, tokens)


def widths(_: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    """Whole numbers, as 256,256 or as repeated flags; "none" is no layer at all."""
    words = [word.strip() for token in tokens for word in token.value.split(",")]
    if words in (["none"], [""]):
        return ()
    if not all(word.isdecimal() for word in words):
        raise ValueError(f"{','.join(words)!r} is not a list of whole numbers such as 256,256")
    return tuple(map(int, words))


def numbers(_: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
    """Numbers, as 0.1,1,4 or as repeated flags."""
    words = [word.strip() for token in tokens for word in token.value.split(",")]
    try:
        return tuple(map(float, words))
    except ValueError:
        raise ValueError(f"{','.join(words)!r} is not a list of numbers such as 0.1,1,4") from None


def words(_: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """Words, as a,b or as repeated flags."""
    return tuple(word.strip() for token in tokens for word in token.value.split(","))


def of(group: Group, default: str, help: str, **more: Any) -> Parameter:
    """A parameter of the estimators, with its default as text; "" for none."""
    return Parameter(group=group, show_default=default or False, help=help, **({"negative": ""} | more))


@Parameter(name="*")
@dataclass(frozen=True)
class Parameters:
    """The parameters of the estimators."""

    n_latents: Annotated[
        int | None, of(MODEL, "8; images 16; counts 10; interactions 200", "Number of latents.", converter=whole)
    ] = None
    beta: Annotated[
        float | str | None,
        of(
            MODEL,
            "1.0; interactions 0.2",
            "Weight of the rate in nats per row; 1 is the ELBO. A range, 0.01..10, learns every beta at once. Also "
            "warmup:end=1,fraction=0.3, cyclical:cycles=4, perrow:gamma=0.005, targetrate:nats=12, "
            "targetdistortion:nats=80, capacity:nats=25.",
            metavar="BETA",
        ),
    ] = None
    likelihood: Annotated[
        str | None,
        of(
            MODEL,
            "auto",
            "auto chooses by the data and gives the reason; or bernoulli, binomial, gaussian, student_t, poisson, "
            "negative_binomial, multinomial, categorical, discretized_logistic, continuous_bernoulli, warped, ordinal, "
            "with options as "
            """in gaussian:scale=shared; or by columns: '{"gaussian": ["age"], "bernoulli": ["smoker"]}'.""",
            metavar="NAME",
        ),
    ] = None
    prior: Annotated[
        str | None,
        of(
            MODEL,
            "auto; images standard; counts standard; interactions standard",
            "standard, mixture:components=100, vamp:components=500, composite, or fitted, a mixture fitted after "
            "training; auto is fitted for tables with a schema.",
            metavar="NAME",
        ),
    ] = None
    covariance: Annotated[Literal["diagonal", "full"] | None, of(MODEL, "diagonal", "Covariance of the posterior.")] = (
        None
    )
    hidden: Annotated[
        tuple[int, ...] | None,
        of(
            MODEL,
            "256,256; counts 128,128; interactions 600",
            "Widths of the encoder's hidden layers, mirrored in the decoder; none is a linear model.",
            converter=widths,
            metavar="W,W",
        ),
    ] = None
    activation: Annotated[
        Literal["silu", "relu", "tanh", "gelu", "softplus"] | None,
        of(MODEL, "silu; interactions tanh", "Activation of the hidden layers."),
    ] = None
    gated: Annotated[bool | None, of(MODEL, "no", "Gated linear units instead of the activation.")] = None

    layout: Annotated[
        Literal["channels_first", "channels_last"] | None,
        of(IMAGES, "auto", "Axis of the channels, first as in PyTorch or last; by default, inferred from the shape."),
    ] = None
    body: Annotated[Literal["conv", "residual", "mlp"] | None, of(IMAGES, "conv", "Kind of network.")] = None
    channels: Annotated[
        tuple[int, ...] | None,
        of(IMAGES, "32,64", "Channels of each stage, which halves the image.", converter=widths, metavar="C,C"),
    ] = None
    blocks: Annotated[int | None, of(IMAGES, "1", "Blocks per stage of a residual body.", converter=whole)] = None
    binarize: Annotated[
        Literal["threshold", "sample"] | None,
        of(
            IMAGES,
            "",
            "Make pixels 0 or 1: by a threshold of one half, or drawn with the intensity as the probability.",
        ),
    ] = None

    layer: Annotated[str | None, of(COUNTS, "", "Layer of an .h5ad with the counts instead of .X.")] = None
    batch_key: Annotated[
        str | None, of(COUNTS, "", "Column of an .h5ad's .obs to condition the model on, such as the batch.")
    ] = None

    user: Annotated[
        str | None,
        of(INTERACTIONS, "", "Column of the users; by default chosen by name, else the first.", metavar="COLUMN"),
    ] = None
    item: Annotated[
        str | None,
        of(INTERACTIONS, "", "Column of the items; by default chosen by name, else the second.", metavar="COLUMN"),
    ] = None
    value: Annotated[str | None, of(INTERACTIONS, "", "Column of counts or ratings.", metavar="COLUMN")] = None
    threshold: Annotated[float | None, of(INTERACTIONS, "", "Leave out interactions with values below this.")] = None
    counts: Annotated[bool | None, of(INTERACTIONS, "no", "Keep counts; otherwise every interaction counts once.")] = (
        None
    )
    ratings: Annotated[bool | None, of(INTERACTIONS, "no", "The values are ratings, to be predicted.")] = None
    min_user: Annotated[
        int | None, of(INTERACTIONS, "1", "Leave out users with fewer interactions.", converter=whole)
    ] = None
    min_item: Annotated[
        int | None, of(INTERACTIONS, "1", "Leave out items with fewer interactions.", converter=whole)
    ] = None
    dropout: Annotated[
        float | None,
        of(INTERACTIONS, "0.5", "Share of a history that is dropped from the encoder's input in training."),
    ] = None
    tied: Annotated[
        bool | None, of(INTERACTIONS, "no", "Share one table of items between the first and the last layer.")
    ] = None
    init: Annotated[
        Literal["spectral", "random"] | None,
        of(
            INTERACTIONS,
            "spectral",
            "Initialisation of the tables of items: singular vectors, or random.",
        ),
    ] = None
    norm: Annotated[bool | None, of(INTERACTIONS, "no", "Layer norm.")] = None
    residual: Annotated[bool | None, of(INTERACTIONS, "no", "Skip connections around hidden layers.")] = None
    neighbour_weight: Annotated[
        float | None, of(INTERACTIONS, "0.0", "Weight in lists of the neighbours of a history's items; try 4.")
    ] = None
    unknown_items: Annotated[
        Literal["warn", "refuse"] | None, of(INTERACTIONS, "warn", "What to do about unknown items.")
    ] = None
    schema: Annotated[
        str | None,
        of(
            TABLES,
            "auto",
            "auto infers kinds of columns if some are not numbers or have missing values; infer always does; robust "
            'too, with heavy tails for numbers; or a .json file: {"age": "count"}.',
            metavar="auto|infer|robust|FILE",
        ),
    ] = None

    objective: Annotated[
        str | None, of(TRAINING, "elbo", "elbo, elbo:free_bits=0.1 or iwae:draws=8.", metavar="NAME")
    ] = None
    epochs: Annotated[
        int | str | None,
        of(TRAINING, "auto", "auto aims at 4,000 steps.", converter=whole_or_word, metavar="INT|auto"),
    ] = None
    batch_size: Annotated[int | None, of(TRAINING, "128; interactions 500", "Rows per step.", converter=whole)] = None
    learning_rate: Annotated[float | None, of(TRAINING, "0.003; interactions 0.001", "Peak of the schedule.")] = None
    validation_fraction: Annotated[
        float | None, of(TRAINING, "0.1; interactions 0.0", "Share of rows held out to select the best epoch.")
    ] = None
    patience: Annotated[
        int | None, of(TRAINING, "", "Stop after this many epochs without a better held-out loss.", converter=whole)
    ] = None
    average: Annotated[
        bool | None, of(TRAINING, "yes", "Keep a moving average of the weights.", negative="--no-average")
    ] = None
    device: Annotated[str | None, of(TRAINING, "auto", "auto, cpu, cuda or mps.", metavar="NAME")] = None
    precision: Annotated[Literal["float32", "bfloat16"] | None, of(TRAINING, "float32", "Precision of training.")] = (
        None
    )
    random_state: Annotated[
        int | None, of(TRAINING, "", "Random seed; by default, one is drawn and shown.", converter=whole)
    ] = None
    verbose: Annotated[bool | None, of(TRAINING, "yes; with --json no", "Show progress.", negative="--no-verbose")] = (
        None
    )

    def given(self) -> dict[str, Any]:
        """The parameters that were given, for an estimator or a JSON file."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}


@Parameter(name="*")
@dataclass(frozen=True)
class SweepParameters(Parameters):
    """The parameters of the estimators of a sweep, with several betas."""

    beta: Annotated[
        tuple[float, ...] | None,
        of(
            MODEL,
            "",
            "Two or more numbers: weights of the rate in nats per row, one for each model; 1 is the ELBO.",
            converter=numbers,
            metavar="BETA,BETA",
        ),
    ] = None  # type: ignore[assignment]


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of all commands."""

    json: Annotated[
        bool, Parameter(group=OTHER, show_default=False, negative="", help="Answer with one JSON object.")
    ] = False
    debug: Annotated[
        bool, Parameter(group=OTHER, show_default=False, negative="", help="Show the traceback of an error.")
    ] = False


def from_config_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take options that are not on the command line from the TOML file of --config."""
    tokens = next((argument.tokens for argument in arguments if argument.name == "--config"), None)
    if not tokens:
        return
    path = Path(tokens[0].value)
    try:
        values = tomllib.loads(read_text(path, "a TOML file"))
    except DataError as error:
        raise CycloptsError(msg=f"Invalid value for --config: {error.got}. {error.do}") from error
    except (ValueError, RecursionError) as error:
        raise CycloptsError(msg=f"Invalid value for --config: {path} is not a TOML file ({error}).") from error
    if taken := values.keys() & {"json", "debug", "config"}:
        raise CycloptsError(msg=f"Invalid value for --config: {min(taken)} in {path} belongs on the command line.")
    plain = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in values.items()}
    Dict(plain, source=str(path), use_commands_as_keys=False)(app, commands, arguments)
