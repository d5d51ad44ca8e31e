"""The simulator: a whole topology in one process, in virtual time, the same every time."""

from fabric.sim.world import Livelock, World

__all__ = ["Livelock", "World"]
