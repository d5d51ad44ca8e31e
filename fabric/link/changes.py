"""Changes of a link's settings while it runs: what is named is replaced, what is not named stays.

A value is a text in tc's units, as in topology files, or plain, as in ``LinkSettings``: nanoseconds, bits per second, a
ratio, a number of frames.
"""

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from fabric.errors import UsageError
from fabric.link.settings import LinkSettings
from fabric.units import parse_duration, parse_rate, parse_ratio

EXAMPLES = {"latency": "2ms", "jitter": "0.2ms", "loss": "0.5%", "rate": "1Gbit or none", "queue": "1000"}
"""Setting -> how a value of it is written."""
_TEXT_MAX = 40


def _queue(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a whole number of frames")
    return int(text)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "latency": parse_duration,
    "jitter": parse_duration,
    "loss": parse_ratio,
    "rate": lambda text: None if text == "none" else parse_rate(text),
    "queue": _queue,
}


def merged(settings: LinkSettings, changes: Mapping[str, object]) -> LinkSettings:
    """``settings`` with ``changes``. UsageError names the setting and what was expected, or what may be meant."""
    values = {key: _value(key, value) for key, value in changes.items()}
    try:
        return replace(settings, **values)
    except ValueError as error:
        raise UsageError(str(error)) from None


def suggestion(name: str, known: Collection[str]) -> str:
    """``did you mean 'loss'?`` when something is close to ``name``, else what there is."""
    close = difflib.get_close_matches(shortened(name), list(known), 1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"


def shortened(text: str) -> str:
    """At most _TEXT_MAX characters of what somebody wrote, for a message."""
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 3] + "..."


def _value(key: str, value: object) -> Any:
    if key not in _PARSERS:
        raise UsageError(f"there is no link setting {shortened(key)!r}; {suggestion(key, EXAMPLES)}")
    if isinstance(value, str):
        if len(value) > _TEXT_MAX:
            raise UsageError(f"{key}: {shortened(value)!r} is too long; write for example {EXAMPLES[key]}")
        try:
            return _PARSERS[key](value)
        except ValueError as error:
            raise UsageError(f"{key}: {error}") from None
    if (value is None and key == "rate") or (isinstance(value, float) and key == "loss"):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{key}: expected a value such as {EXAMPLES[key]}")
    return value
