"""Turns the rounds of a race into figures and a text table."""

import statistics
from collections.abc import Callable

REFERENCES = ("loop", "pythae")
HEADINGS = (
    "",
    "version",
    "rows/s",
    "range",
    "of limit",
    "x loop",
    "x pythae",
    "nats/row",
    "peak MB",
)


def summarise(name: str, rounds: list[dict]) -> dict:
    """The figures of one competitor: medians over its rounds, ratios taken within a round."""
    own = [r for r in rounds if "loss" in r["runs"].get(name, {})]
    if not own:
        return {"name": name, "error": next(r["runs"][name]["error"] for r in rounds)}
    speeds = [r["runs"][name]["rows_per_second"] for r in own]
    figures = {
        "name": name,
        "version": own[0]["runs"][name]["version"],
        "rows_per_second": statistics.median(speeds),
        "slowest": min(speeds),
        "fastest": max(speeds),
        "of_limit": _ratio(own, name, lambda r: r["products"]["limit"]),
        "loss": statistics.median(r["runs"][name]["loss"] for r in own),
        "peak_mb": statistics.median(r["runs"][name]["peak_mb"] for r in own),
        "note": own[-1]["runs"][name]["note"],
    }
    return figures | {f"x_{other}": _ratio(own, name, _speed_of(other)) for other in REFERENCES}


def _speed_of(name: str) -> Callable[[dict], float | None]:
    """A function from a round to the speed that `name` had in it."""
    return lambda one_round: one_round["runs"].get(name, {}).get("rows_per_second")


def _ratio(rounds: list[dict], name: str, reference: Callable[[dict], float | None]) -> float | None:
    """The median over rounds of the competitor's speed divided by the reference's speed in the same round."""
    pairs = [(r["runs"][name]["rows_per_second"], reference(r)) for r in rounds]
    ratios = [own / other for own, other in pairs if other]
    return statistics.median(ratios) if ratios else None


def table(batch: int, rounds: list[dict], summaries: list[dict]) -> str:
    """One batch size's figures as a text table."""
    limit = statistics.median(r["products"]["limit"] for r in rounds)
    paths = ", ".join(sorted({r["products"]["path"] for r in rounds}))
    others = statistics.median(r["others"] for r in rounds)
    title = f"batch {batch}: the limit by matrix products alone is {limit:,.0f} rows/s ({paths} path)"
    crowd = f"  meanwhile other programs used {others:.2f} cores"
    return "\n".join([title, crowd, *_aligned([HEADINGS, *map(_cells, summaries)]), *_remarks(summaries)])


def _cells(figures: dict) -> tuple[str, ...]:
    """One line of the table."""
    if "error" in figures:
        return (figures["name"], *["-"] * (len(HEADINGS) - 1))
    return (
        figures["name"],
        figures["version"],
        f"{figures['rows_per_second']:,.0f}",
        f"{figures['slowest']:,.0f}-{figures['fastest']:,.0f}",
        *(_number(figures[key]) for key in ("of_limit", "x_loop", "x_pythae")),
        f"{figures['loss']:.2f}",
        f"{figures['peak_mb']:.0f}",
    )


def _number(value: float | None) -> str:
    """A ratio with two decimals, or a dash for one that was not measured."""
    return "-" if value is None else f"{value:.2f}"


def _aligned(lines: list[tuple[str, ...]]) -> list[str]:
    """The lines with columns of equal width: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]) for first, *rest in lines]


def _remarks(summaries: list[dict]) -> list[str]:
    """What is to be said about single competitors: absent, failed, or a note of their own."""
    remarks = [(s["name"], s.get("error") or s.get("note")) for s in summaries]
    return [f"  {name}: {remark}" for name, remark in remarks if remark]
