"""The command line: `elbowroom demo | fit | resume | sweep | encode | sample | score | recommend | curve | pick | ...`.

This file declares the commands; `options` has the estimators' parameters, `commands` and `ranges` the implementations,
`models` opens saved models, `runs` keeps runs, and `console` prints answers and errors. Nothing heavy is imported
before a command begins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Literal, NoReturn

from cyclopts import App, Group, Parameter

from elbowroom._version import __version__
from elbowroom.cli.console import Answer, Console
from elbowroom.cli.options import (
    DATA,
    OTHER,
    OUTPUT,
    TRAINING,
    Common,
    Kind,
    Parameters,
    SweepParameters,
    from_config_file,
    numbers,
    whole,
    words,
)

HELP = """Variational autoencoders with one canonical beta, on the data that you have.

Start with `elbowroom demo`, or with your own data: `elbowroom fit data.csv --out model`."""

FILES = "A .npy, .npz (or .npz:ARRAY), .csv, .tsv, .parquet, .h5ad or IDX file, or a folder of images."
TRAIN, USE, LOOK = (Group(name, sort_key=i) for i, name in enumerate(["Train", "Use a model", "Look at a model"]))
common = Common()
parameters, sweep_parameters = Parameters(), SweepParameters()

Out = Annotated[str, Parameter(group=OUTPUT, help="Output path; its extension selects the format.", metavar="PATH")]
Model = Annotated[str, Parameter(help="A saved model.", metavar="MODEL")]
RangeModel = Annotated[
    str, Parameter(help="A saved model of a range of beta, or the folder of a sweep.", metavar="MODEL")
]
File = Annotated[str, Parameter(help=FILES, metavar="FILE")]
Overwrite = Annotated[bool, Parameter(group=OUTPUT, show_default=False, negative="", help="Replace an existing model.")]
Beta = Annotated[
    float | None,
    Parameter(help="A beta within the model's range, or of the sweep.", metavar="BETA", show_default=False),
]
Betas = Annotated[
    tuple[float, ...] | None,
    Parameter(
        converter=numbers,
        negative="",
        help="Betas of MODEL; by default 13 in a range, or all of a sweep.",
        metavar="B,B",
    ),
]
LabelColumns = Annotated[
    list[str] | None,
    Parameter(group=DATA, negative="", help="A column that is not a feature (may be repeated).", metavar="COLUMN"),
]
KindOfData = Annotated[
    Kind, Parameter(group=DATA, help="auto: arrays of 3 or 4 axes are images, .h5ad and sparse ones counts.")
]
ConfigFile = Annotated[
    str | None,
    Parameter(group=OTHER, help="A TOML file with any of these options, such as n_latents = 4.", metavar="FILE.toml"),
]
Seed = Annotated[int | None, Parameter(group=OTHER, converter=whole, help="Random seed.", metavar="INT")]

app = App(
    name="elbowroom",
    help=HELP,
    version=__version__,
    config=from_config_file,
    group_commands=Group("Other", sort_key=9),
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
)


def main(tokens: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and exit."""
    if not os.environ.get("COLUMNS", "80").isdecimal() or int(os.environ.get("COLUMNS", "80")) < 20:
        del os.environ["COLUMNS"]  # too narrow for help pages
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets this number, which a file must not: libraries write to stderr
    sys.exit(run(sys.argv[1:] if tokens is None else tokens))


def run(tokens: Sequence[str]) -> int:
    """Run a command line and return its exit code: 0 done, 1 wrong data or model, 2 wrong usage, 128 + n signal n."""
    return Console(json="--json" in tokens, debug="--debug" in tokens).run(lambda: app(list(tokens)))


@app.command(group=TRAIN, usage="Usage: elbowroom demo [digits|recommend] [OPTIONS]")
def demo(
    what: Annotated[Literal["digits", "recommend"], Parameter(help="Images, or clicks on pages.")] = "digits",
    /,
    *,
    out: Annotated[str, Parameter(group=OUTPUT, help="A new folder.", metavar="FOLDER")] = "elbowroom-demo",
    common: Common = common,
) -> Answer:
    """Train on bundled data and write a report, in half a minute.

    digits: 1,797 images. recommend: the pages that 32,710 visitors of a web site saw.
    """
    from elbowroom.cli import demos

    return demos.demo(what, out, not common.json)


@app.command(group=TRAIN, usage="Usage: elbowroom fit FILE --out MODEL [OPTIONS]")
def fit(
    file: File,
    /,
    *,
    out: Annotated[str, Parameter(group=OUTPUT, help="The folder of the model.", metavar="MODEL")],
    overwrite: Overwrite = False,
    kind: KindOfData = "auto",
    label: LabelColumns = None,
    config: ConfigFile = None,
    parameters: Parameters = parameters,
    common: Common = common,
) -> Answer:
    """Train a model on a file and save it.

    Until it is saved, MODEL.run keeps settings and checkpoints: `elbowroom resume MODEL.run` continues a run that was
    killed or interrupted, with the same result to the last bit.
    """
    from elbowroom.cli import commands

    return commands.fit(file, out, kind, label or [], parameters.given(), not common.json, overwrite)


@app.command(group=TRAIN, usage="Usage: elbowroom resume MODEL.run [OPTIONS]")
def resume(
    folder: Annotated[str, Parameter(help="The folder of the run.", metavar="MODEL.run")], /, *, common: Common = common
) -> Answer:
    """Continue a run that was killed or interrupted."""
    from elbowroom.cli import commands

    return commands.resume(folder, not common.json)


@app.command(group=TRAIN, usage="Usage: elbowroom sweep FILE --beta 0.1,1,4 --out FOLDER [OPTIONS]")
def sweep(
    file: File,
    /,
    *,
    out: Annotated[str, Parameter(group=OUTPUT, help="The folder of the models.", metavar="FOLDER")],
    jobs: Annotated[
        int, Parameter(converter=whole, help="Processes that train at the same time.", metavar="INT", group=OTHER)
    ] = 1,
    warm_start: Annotated[
        bool,
        Parameter(
            group=TRAINING, negative="--no-warm-start", help="Start from the weights of the model at the middle beta."
        ),
    ] = True,
    kind: KindOfData = "auto",
    label: LabelColumns = None,
    config: ConfigFile = None,
    parameters: SweepParameters = sweep_parameters,
    common: Common = common,
) -> Answer:
    """Train one model for each of many betas on a file.

    Finished models are FOLDER/beta-0.1 and so on. The same command continues an unfinished sweep, also after it was
    killed. One model for a whole range is faster: `elbowroom fit FILE --beta 0.01..10 --out MODEL`.
    """
    from elbowroom.cli import ranges

    return ranges.sweep(file, out, jobs, warm_start, kind, label or [], parameters.given(), not common.json)


@app.command(group=USE, usage="Usage: elbowroom encode MODEL FILE --out PATH [OPTIONS]")
def encode(model: Model, file: File, /, *, out: Out, beta: Beta = None, common: Common = common) -> Answer:
    """Encode rows: their posterior means."""
    from elbowroom.cli import commands

    return commands.encode(model, file, out, beta)


@app.command(group=USE, usage="Usage: elbowroom reconstruct MODEL FILE --out PATH [OPTIONS]")
def reconstruct(model: Model, file: File, /, *, out: Out, beta: Beta = None, common: Common = common) -> Answer:
    """Reconstruct rows: encode and decode them."""
    from elbowroom.cli import commands

    return commands.reconstruct(model, file, out, beta)


@app.command(group=USE, usage="Usage: elbowroom sample MODEL -n 100 --out PATH [OPTIONS]")
def sample(
    model: Model,
    /,
    *,
    n: Annotated[
        int, Parameter(name=["--n-samples", "-n"], converter=whole, help="Number of rows.", metavar="INT")
    ] = 100,
    out: Out,
    mean: Annotated[
        bool,
        Parameter(show_default=False, negative="", help="Means instead of draws: images without the noise of pixels."),
    ] = False,
    given: Annotated[
        list[str] | None,
        Parameter(
            negative="", help="Value of a column in all rows, for tables (may be repeated).", metavar="COLUMN=VALUE"
        ),
    ] = None,
    context: Annotated[
        str | None, Parameter(help="Label to sample for, in a model with --batch-key.", metavar="LABEL")
    ] = None,
    random_state: Seed = None,
    beta: Beta = None,
    common: Common = common,
) -> Answer:
    """Draw new rows from the model."""
    from elbowroom.cli import commands

    return commands.sample(model, n, out, mean, given or [], context, random_state, beta)


@app.command(group=USE, usage="Usage: elbowroom impute MODEL FILE --out PATH [OPTIONS]")
def impute(
    model: Model,
    file: File,
    /,
    *,
    out: Out,
    n: Annotated[
        int | None,
        Parameter(converter=whole, help="Number of imputations to draw, to PATH-1, PATH-2, ...", metavar="INT"),
    ] = None,
    how: Annotated[
        Literal["likely", "mean"], Parameter(help="A single imputation: medians or means of numbers.")
    ] = "likely",
    random_state: Seed = None,
    beta: Beta = None,
    common: Common = common,
) -> Answer:
    """Fill in the missing cells of a table."""
    from elbowroom.cli import table_commands

    return table_commands.impute(model, file, out, n, how, random_state, beta)


@app.command(group=USE, usage="Usage: elbowroom detect MODEL FILE [OPTIONS]")
def detect(
    model: Model,
    file: File,
    /,
    *,
    contamination: Annotated[float, Parameter(help="Expected share of anomalous rows.", metavar="SHARE")] = 0.05,
    out: Annotated[
        str | None, Parameter(group=OUTPUT, help="Scores of every row and cell (.csv, ...).", metavar="PATH")
    ] = None,
    beta: Beta = None,
    common: Common = common,
) -> Answer:
    """Find the anomalous rows of a table, and the columns responsible."""
    from elbowroom.cli import table_commands

    return table_commands.detect(model, file, out, contamination, beta)


@app.command(group=LOOK, usage="Usage: elbowroom quality REAL SYNTHETIC [OPTIONS]")
def quality(
    real: Annotated[str, Parameter(help=FILES, metavar="REAL")],
    synthetic: Annotated[str, Parameter(help="The synthetic table.", metavar="SYNTHETIC")],
    /,
    *,
    test: Annotated[str | None, Parameter(help="Real rows that were not in training.", metavar="FILE")] = None,
    target: Annotated[
        str | None, Parameter(help="A column that trees learn from each table and predict in --test.", metavar="COLUMN")
    ] = None,
    out: Annotated[
        str | None, Parameter(group=OUTPUT, help="A page with figures: an .html file.", metavar="PATH")
    ] = None,
    common: Common = common,
) -> Answer:
    """Evaluate the quality of a synthetic table, compared with the real one."""
    from elbowroom.cli import table_commands

    return table_commands.quality(real, synthetic, test, target, out)


@app.command(group=USE, usage="Usage: elbowroom score MODEL FILE [OPTIONS]")
def score(
    model: Model,
    file: File,
    /,
    *,
    draws: Annotated[
        int, Parameter(converter=whole, help="Draws of the importance sampling; 0 for none.", metavar="INT")
    ] = 1000,
    out: Annotated[
        str | None, Parameter(group=OUTPUT, help="Scores of every row (.csv, .npy, ...).", metavar="PATH")
    ] = None,
    beta: Beta = None,
    common: Common = common,
) -> Answer:
    """Score rows: ELBO, distortion, rate and log-likelihood."""
    from elbowroom.cli import commands

    return commands.score(model, file, draws, out, beta)


@app.command(group=USE, usage="Usage: elbowroom recommend MODEL [FILE] [OPTIONS]")
def recommend(
    model: Model,
    file: Annotated[
        str | None,
        Parameter(help="Interactions of users; by default, those that the model was trained on.", metavar="FILE"),
    ] = None,
    /,
    *,
    n: Annotated[int, Parameter(name=["--n-items", "-n"], converter=whole, help="Items per user.", metavar="INT")] = 10,
    out: Annotated[
        str | None,
        Parameter(group=OUTPUT, help="A .parquet, .csv or .tsv: user, item, rank, score.", metavar="PATH"),
    ] = None,
    user: Annotated[
        list[str] | None, Parameter(negative="", help="A known user (may be repeated).", metavar="ID")
    ] = None,
    again: Annotated[
        bool, Parameter(show_default=False, negative="", help="Include items that a user already has.")
    ] = False,
    beta: Beta = None,
    common: Common = common,
) -> Answer:
    """Recommend items to users, with a model of interactions."""
    from elbowroom.cli import recommenders

    return recommenders.recommend(model, file, n, out, user or [], again, beta)


@app.command(group=LOOK, usage="Usage: elbowroom evaluate MODEL FILE [OPTIONS]")
def evaluate(
    model: Model,
    file: File,
    /,
    *,
    fold_in: Annotated[
        float, Parameter(help="Share of a new user's interactions that is shown; the rest is held out.")
    ] = 0.8,
    known: Annotated[
        bool,
        Parameter(show_default=False, negative="", help="The users are known: FILE has their held-out interactions."),
    ] = False,
    metrics: Annotated[
        tuple[str, ...],
        Parameter(
            converter=words,
            negative="",
            help="NAME@K; for ratings also rmse and mae.",
            metavar="NAME@K,NAME@K",
            show_default=", ".join,
        ),
    ] = ("recall@20[plain]", "recall@20[min]", "ndcg@20", "ndcg@100", "coverage@20", "popularity@20"),
    beta: Beta = None,
    common: Common = common,
) -> Answer:
    """Evaluate recommendations, with popularity, nearest items and EASE as baselines."""
    from elbowroom.cli import recommenders

    return recommenders.evaluate(model, file, fold_in, metrics, known, beta)


@app.command(group=USE, usage="Usage: elbowroom pick MODEL FILE [OPTIONS]")
def pick(
    model: RangeModel,
    file: File,
    /,
    *,
    task: Annotated[
        str,
        Parameter(
            help="log_likelihood or elbo: the highest. rate:nats=12 or distortion:nats=80: that target. knee: that of "
            "the curve.",
            metavar="TASK",
        ),
    ] = "log_likelihood",
    betas: Betas = None,
    out: Annotated[
        str | None, Parameter(group=OUTPUT, help="Also save the model at this beta.", metavar="MODEL")
    ] = None,
    overwrite: Overwrite = False,
    common: Common = common,
) -> Answer:
    """Pick the best beta for a task, on rows that were not in training."""
    from elbowroom.cli import ranges

    return ranges.pick(model, file, task, betas, out, overwrite)


@app.command(group=LOOK, usage="Usage: elbowroom curve MODEL FILE [OPTIONS]")
def curve(
    model: RangeModel,
    file: File,
    /,
    *,
    betas: Betas = None,
    others: Annotated[
        list[str] | None,
        Parameter(name="--with", negative="", help="Another model or sweep (may be repeated).", metavar="MODEL"),
    ] = None,
    out: Annotated[
        str | None,
        Parameter(
            group=OUTPUT, help="A table (.csv, .parquet, .json, ...) or a figure (.png, .svg, .pdf).", metavar="PATH"
        ),
    ] = None,
    common: Common = common,
) -> Answer:
    """Compute the rate-distortion curve over beta, as a table or a figure."""
    from elbowroom.cli import ranges

    return ranges.curve(model, file, betas, others or [], out)


@app.command(group=LOOK, usage="Usage: elbowroom report MODEL FILE --out report.html [OPTIONS]")
def report(
    model: Model,
    file: File,
    /,
    *,
    out: Annotated[str, Parameter(group=OUTPUT, help="An .html file.", metavar="PATH")],
    labels: Annotated[
        str | None,
        Parameter(help="A column, or a file with one label per row, to colour the map by.", metavar="COLUMN|FILE"),
    ] = None,
    beta: Beta = None,
    common: Common = common,
) -> Answer:
    """Write an HTML page: quality, latents, reconstructions, samples, training."""
    from elbowroom.cli import commands

    return commands.report(model, file, out, labels, beta)


@app.command(group=LOOK, usage="Usage: elbowroom info MODEL [OPTIONS]")
def info(model: Model, /, *, common: Common = common) -> Answer:
    """Describe a model: settings, training, and a verdict."""
    from elbowroom.cli import commands

    return commands.info(model)
