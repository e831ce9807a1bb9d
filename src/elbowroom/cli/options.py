"""The flags: one list of the estimators' parameters, with help and defaults as text, so that --help imports no torch.

A parameter that is not given is None here, and then the estimator's own default holds. A test compares names,
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
    """A parameter of the estimators, whose default is said in words; "" is none."""
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
            "auto looks at the data and says why; or bernoulli, binomial, gaussian, student_t, poisson, "
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
    covariance: Annotated[Literal["diagonal", "full"] | None, of(MODEL, "diagonal", "Of the posterior.")] = None
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
        of(MODEL, "silu; interactions tanh", "Of the hidden layers."),
    ] = None
    gated: Annotated[bool | None, of(MODEL, "no", "Gated linear units instead of the activation.")] = None

    layout: Annotated[
        Literal["channels_first", "channels_last"] | None,
        of(IMAGES, "auto", "Where the channels are, first as in PyTorch or last; without it, the shape says it."),
    ] = None
    body: Annotated[Literal["conv", "residual", "mlp"] | None, of(IMAGES, "conv", "Kind of network.")] = None
    channels: Annotated[
        tuple[int, ...] | None,
        of(IMAGES, "32,64", "Channels of the stages; each halves the image.", converter=widths, metavar="C,C"),
    ] = None
    blocks: Annotated[int | None, of(IMAGES, "1", "Blocks in a stage of a residual body.", converter=whole)] = None
    binarize: Annotated[
        Literal["threshold", "sample"] | None,
        of(IMAGES, "", "Make pixels 0 or 1: above half, or drawn with the intensity as the chance."),
    ] = None

    layer: Annotated[str | None, of(COUNTS, "", "Layer of an .h5ad with the counts instead of .X.")] = None
    batch_key: Annotated[
        str | None, of(COUNTS, "", "Column of an .h5ad's .obs that the model is told, such as the batch.")
    ] = None

    user: Annotated[
        str | None, of(INTERACTIONS, "", "Column of the users; else by name, or the first.", metavar="COLUMN")
    ] = None
    item: Annotated[
        str | None, of(INTERACTIONS, "", "Column of the items; else by name, or the second.", metavar="COLUMN")
    ] = None
    value: Annotated[str | None, of(INTERACTIONS, "", "Column of counts or ratings.", metavar="COLUMN")] = None
    threshold: Annotated[float | None, of(INTERACTIONS, "", "Leave out interactions of less than this.")] = None
    counts: Annotated[bool | None, of(INTERACTIONS, "no", "Keep counts; else every interaction counts once.")] = None
    ratings: Annotated[bool | None, of(INTERACTIONS, "no", "The values are ratings, to be predicted.")] = None
    min_user: Annotated[
        int | None, of(INTERACTIONS, "1", "Leave out users with fewer interactions.", converter=whole)
    ] = None
    min_item: Annotated[
        int | None, of(INTERACTIONS, "1", "Leave out items with fewer interactions.", converter=whole)
    ] = None
    dropout: Annotated[
        float | None, of(INTERACTIONS, "0.5", "Share of a history that is hidden from the encoder in training.")
    ] = None
    tied: Annotated[bool | None, of(INTERACTIONS, "no", "One table of items for the first and the last layer.")] = None
    init: Annotated[
        Literal["spectral", "random"] | None,
        of(
            INTERACTIONS,
            "spectral",
            "Where the tables of items start: at singular vectors, or drawn.",
        ),
    ] = None
    norm: Annotated[bool | None, of(INTERACTIONS, "no", "Layer norm.")] = None
    residual: Annotated[bool | None, of(INTERACTIONS, "no", "Hidden layers that add to what they are given.")] = None
    neighbour_weight: Annotated[
        float | None, of(INTERACTIONS, "0.0", "How much neighbours of a history's items count in lists; try 4.")
    ] = None
    unknown_items: Annotated[
        Literal["warn", "refuse"] | None, of(INTERACTIONS, "warn", "What to do about items that are not known.")
    ] = None
    schema: Annotated[
        str | None,
        of(
            TABLES,
            "auto",
            "auto gives columns kinds where some are no numbers or have holes; infer does so always; robust too, with "
            'heavy tails for numbers; or a .json file: {"age": "count"}.',
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
    batch_size: Annotated[int | None, of(TRAINING, "128; interactions 500", "Rows of a step.", converter=whole)] = None
    learning_rate: Annotated[float | None, of(TRAINING, "0.003; interactions 0.001", "Peak of the schedule.")] = None
    validation_fraction: Annotated[
        float | None, of(TRAINING, "0.1; interactions 0.0", "Share of rows held out to choose the best epoch.")
    ] = None
    patience: Annotated[
        int | None, of(TRAINING, "", "Stop after so many epochs without a better held-out loss.", converter=whole)
    ] = None
    average: Annotated[
        bool | None, of(TRAINING, "yes", "Keep a moving average of the weights.", negative="--no-average")
    ] = None
    device: Annotated[str | None, of(TRAINING, "auto", "auto, cpu, cuda or mps.", metavar="NAME")] = None
    precision: Annotated[Literal["float32", "bfloat16"] | None, of(TRAINING, "float32", "Of the training.")] = None
    random_state: Annotated[
        int | None, of(TRAINING, "", "A seed; without one, one is drawn and shown.", converter=whole)
    ] = None
    verbose: Annotated[bool | None, of(TRAINING, "yes; with --json no", "Show progress.", negative="--no-verbose")] = (
        None
    )

    def given(self) -> dict[str, Any]:
        """The parameters that were given, ready for an estimator or a JSON file."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}


@Parameter(name="*")
@dataclass(frozen=True)
class SweepParameters(Parameters):
    """The parameters of the estimators of a sweep, which has many betas."""

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
    """What every command knows."""

    json: Annotated[
        bool, Parameter(group=OTHER, show_default=False, negative="", help="Answer with one JSON object.")
    ] = False
    debug: Annotated[
        bool, Parameter(group=OTHER, show_default=False, negative="", help="Show the traceback of an error.")
    ] = False


def from_config_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take what the command line leaves open from the TOML file that --config names."""
    tokens = next((argument.tokens for argument in arguments if argument.name == "--config"), None)
    if not tokens:
        return
    path = Path(tokens[0].value)
    try:
        values = tomllib.loads(read_text(path, "a TOML file"))
    except DataError as error:
        raise CycloptsError(msg=f"Invalid value for --config: {error.got}. {error.do}") from error
    except (ValueError, RecursionError) as error:
        raise CycloptsError(msg=f"Invalid value for --config: {path} is no TOML file ({error}).") from error
    if taken := values.keys() & {"json", "debug", "config"}:
        raise CycloptsError(msg=f"Invalid value for --config: {min(taken)} in {path} belongs on the command line.")
    plain = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in values.items()}
    Dict(plain, source=str(path), use_commands_as_keys=False)(app, commands, arguments)
