"""The same lab and puppets as the tests of hand-overs have."""

from tests.nodes.handoff.conftest import lab, pair, puppets

__all__ = ["lab", "pair", "puppets"]
