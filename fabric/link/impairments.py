"""Impairments: each is a small class that looks at one frame on the wire and returns a verdict.

Rules for an impairment:

- It judges a frame by its number (1 for the first frame that ever entered this direction of the link, counting every
  frame, also those that the queue refused) and its bytes, and by nothing else. Its draws come from
  ``fabric.rng.draws``, keyed by (seed, link name, purpose, frame number). So a frame's fate depends on no other link,
  on no other impairment and not on how long the setting has been in force.
- Its docstring says what its distribution is.
- It is built once per ``LinkModel.configure`` and left out when it would do nothing, so it costs nothing when unused.

A verdict is an ``int``, the nanoseconds by which this frame's propagation differs from the configured latency (0: the
frame passes untouched), or a ``Drop``. Verdicts of several impairments add up; the first ``Drop`` ends the frame.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from fabric.link.settings import LinkSettings
from fabric.rng import draws
from fabric.units import Duration


@dataclass(frozen=True, slots=True)
class Drop:
    """The frame is lost; ``reason`` is one word that statistics, captures and the journal show."""

    reason: str


Verdict: TypeAlias = Duration | Drop


class Impairment(Protocol):
    """What the link model needs of an impairment; see the module text for the rules."""

    def verdict(self, number: int, frame: bytes) -> Verdict:
        """What happens to ``frame``, the ``number``-th of its link direction."""
        ...


class Loss:
    """Each frame is lost with probability ``ratio``, independently of all other frames (Bernoulli trials).

    A frame is lost when its uniform draw from [0, 1) is below ``ratio``: whoever is lost at 1% is also lost at 2%.
    """

    __slots__ = ("_draw", "_ratio")

    _LOST = Drop("loss")

    def __init__(self, ratio: float, draw: Callable[[int], float]) -> None:
        self._ratio, self._draw = ratio, draw

    def verdict(self, number: int, frame: bytes) -> Verdict:
        """``Drop("loss")`` or 0."""
        return self._LOST if self._draw(number) < self._ratio else 0


class Jitter:
    """A uniform draw from the integers -bound ... +bound nanoseconds for each frame, independent between frames.

    What the link model makes of it: a total propagation below 0 counts as 0 (only possible when jitter exceeds
    latency), and a frame never arrives before its predecessor: one that drew a shorter way than the one just before it
    arrives at the same instant as that frame. Frames that follow each other closer than about 2 x bound therefore bunch
    up, and the mean delay of a dense train lies above the latency.
    """

    __slots__ = ("_bound", "_draw", "_width")

    def __init__(self, bound: Duration, draw: Callable[[int], float]) -> None:
        self._bound, self._width, self._draw = bound, 2 * bound + 1, draw

    def verdict(self, number: int, frame: bytes) -> Verdict:
        """The difference in nanoseconds."""
        return int(self._draw(number) * self._width) - self._bound


def active_impairments(settings: LinkSettings, link: str, seed: int) -> tuple[Impairment, ...]:
    """The impairments that ``settings`` ask for, in judging order; those without effect are left out."""
    active: list[Impairment] = []
    if settings.loss > 0:
        active.append(Loss(settings.loss, draws(seed, f"link/{link}/loss")))
    if settings.jitter > 0:
        active.append(Jitter(settings.jitter, draws(seed, f"link/{link}/jitter")))
    return tuple(active)
