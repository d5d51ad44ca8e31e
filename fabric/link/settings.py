"""What one direction of a link is set to."""

from dataclasses import dataclass

from fabric.units import SECOND, Duration, format_duration

DEFAULT_QUEUE = 1000
"""Frames, as the ``txqueuelen`` of a Linux Ethernet interface."""
DELAY_MAX: Duration = 60 * SECOND
"""The longest latency, and the largest jitter: a live node holds no frame for longer."""


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Settings of one direction of a link; the other direction has its own.

    Raises ValueError (naming the setting) for a value outside its range.
    """

    latency: Duration = 0
    """Propagation time in nanoseconds, from the end of a frame's serialisation to its arrival."""
    jitter: Duration = 0
    """Each frame's latency differs by a uniform draw from [-jitter, +jitter] nanoseconds: ``impairments.Jitter``."""
    loss: float = 0.0
    """Probability, 0 to 1, that a frame is lost on the wire, independently of all others; see ``impairments.Loss``."""
    rate: int | None = None
    """Bits per second at which frames are serialised, counting Ethernet frame bytes without preamble, frame check
    sequence and gap; ``None`` takes no time."""
    queue: int = DEFAULT_QUEUE
    """How many frames may wait while another one is being serialised; one more is dropped. Matters only with a rate."""

    def __post_init__(self) -> None:
        for name, delay in (("latency", self.latency), ("jitter", self.jitter)):
            if not 0 <= delay <= DELAY_MAX:
                raise ValueError(f"{name} is {format_duration(delay)}; it must be 0 to {format_duration(DELAY_MAX)}")
        if not 0 <= self.loss <= 1:
            raise ValueError(f"loss is {self.loss}; it must be between 0 and 1")
        if self.rate is not None and self.rate <= 0:
            raise ValueError(f"rate is {self.rate} bit/s; it must be above 0, or None for no limit")
        if self.queue < 0:
            raise ValueError(f"queue is {self.queue} frames; it must be 0 or more")
