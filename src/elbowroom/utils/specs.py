"""The text form of a name with options: ``"warmup:end=1,fraction=0.3"``."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
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
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ParameterError(
                f"{what} options look like key=value", f"{text!r} has {item!r}", f"Write {name}:{item}=VALUE."
            )
        if key in options:
            raise ParameterError(
                f"{what} options must not be repeated", f"{text!r} has {key!r} twice", "Keep one of them."
            )
        options[key] = literal(value)
    return name, options


def literal(text: str) -> Any:
    """Read a number, ``true``, ``false`` or ``none``; anything else remains a string."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if isinstance(value, int | float) else text


def make(text: str, family: Mapping[str, Callable[..., Any]], what: str, *args: Any) -> Any:
    """Build a member of a family from its text form; keyword-only arguments are not options."""
    name, _ = parse(text, family, what)
    given = list(inspect.signature(family[name]).parameters)[: len(args)]
    return family[name](*args, **options_of(text, family, what, given))


def options_of(
    text: str, family: Mapping[str, Callable[..., Any]], what: str, given: Collection[str]
) -> dict[str, Any]:
    """The options in a text form, refused if they are no parameters of its member, or `given` otherwise."""
    name, options = parse(text, family, what)
    known = {
        key: parameter
        for key, parameter in inspect.signature(family[name]).parameters.items()
        if key not in given and parameter.kind is not parameter.KEYWORD_ONLY
    }
    for key in options:
        if key not in known:
            raise unknown(f"an option of {what}={name!r}", key, list(known) or ["(it has none)"])
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in options:
            raise ParameterError(f"{what}={name!r} needs {key}", f"it has none: {text!r}", f"Write {name}:{key}=VALUE.")
    return options


def text_form(name: str, options: Mapping[str, Any]) -> str:
    """Join a name and its options into a text form; the inverse of `parse`.

    >>> text_form("cyclical", {"cycles": 4, "ramp": 0.5})
    'cyclical:cycles=4,ramp=0.5'
    """
    listed = ",".join(f"{key}={value_form(value)}" for key, value in options.items())
    return f"{name}:{listed}" if listed else name


def value_form(value: object) -> str:
    """The shortest text that `literal` reads as the same value.

    >>> value_form(4.0), value_form(0.1 + 0.2)
    ('4', '0.30000000000000004')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, Real) or isinstance(value, Integral):
        return str(value)
    short = f"{float(value):g}"
    return short if float(short) == float(value) else repr(float(value))
