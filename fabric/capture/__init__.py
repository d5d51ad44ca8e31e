"""Capturing: taps on the data path, pcapng streams, merging them, and scapy's view of a live one.

``SanTap`` is loaded when it is first asked for, so that importing this package never imports scapy.
"""

from typing import TYPE_CHECKING, Any

from fabric.capture.tap import IN, OUT, CapturedFrame, Direction, Tap, TapSet, TapStatistics

if TYPE_CHECKING:
    from fabric.capture.santap import SanTap as SanTap

__all__ = ["IN", "OUT", "CapturedFrame", "Direction", "SanTap", "Tap", "TapSet", "TapStatistics"]


def __getattr__(name: str) -> Any:
    if name == "SanTap":
        from fabric.capture.santap import SanTap

        return SanTap
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
