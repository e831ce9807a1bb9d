"""The text form of a choice with options: ``"warmup:end=1,fraction=0.3"``."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from elbowroom.errors import ParameterError, unknown


def parse(text: str, family: Mapping[str, Callable[..., Any]], what: str) -> tuple[str, dict[str, Any]]:
    """Split ``"name:key=value,..."`` into a known name and its options.

    >>> parse("binomial:total=16", {"binomial": dict}, "likelihood")
    ('binomial', {'total': 16})
    """
    name, _, rest = text.strip().partition(":")
    if name not in family:
        raise unknown(what, name, family)
    options: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = item.partition("=")
        if not equals:
            raise ParameterError(
                f"{what} options look like key=value", f"{text!r} has {item!r}", f"Write {name}:{item}=VALUE."
            )
        options[key.strip()] = literal(value.strip())
    return name, options


def literal(text: str) -> Any:
    """Read a number, ``true``, ``false`` or ``none``; anything else stays text."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if isinstance(value, int | float) else text


def make(text: str, family: Mapping[str, Callable[..., Any]], what: str, *args: Any) -> Any:
    """Build the member of a family that a text form names."""
    name, options = parse(text, family, what)
    known = list(inspect.signature(family[name]).parameters)[len(args) :]
    for key in options:
        if key not in known:
            raise unknown(f"an option of {what}={name!r}", key, known or ["(it has none)"])
    return family[name](*args, **options)


def text_form(name: str, options: Mapping[str, Any]) -> str:
    """Join a name and its options into the text form that `parse` reads.

    >>> text_form("cyclical", {"cycles": 4})
    'cyclical:cycles=4'
    """
    listed = ",".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in options.items()
    )
    return f"{name}:{listed}" if listed else name
