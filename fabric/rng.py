"""Randomness that stays put.

``draw`` derives each number from the seed and a key, e.g. (seed, link, purpose, frame number): a link's draws depend
on nothing that happens elsewhere. ``stream`` gives a named generator for what has no natural key. Nothing here reads
entropy.
"""

import hashlib
import random
from collections.abc import Callable
from typing import TypeAlias

Stream: TypeAlias = random.Random

_TWO_POW_MINUS_53 = 2.0**-53


def _digest(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=32).digest()


def stream(seed: int, name: str) -> Stream:
    """A generator of its own for ``name``; adding another name changes nothing in this one."""
    return random.Random(_digest(seed, name))


def draws(seed: int, name: str) -> Callable[[int], float]:
    """The keyed draw of ``name``: a function from a number (of a frame, say) to a uniform float in [0, 1)."""
    keyed = hashlib.blake2b(key=_digest(seed, name), digest_size=8)

    def draw(number: int) -> float:
        state = keyed.copy()
        state.update(number.to_bytes(8, "big"))
        return (int.from_bytes(state.digest(), "big") >> 11) * _TWO_POW_MINUS_53

    return draw
