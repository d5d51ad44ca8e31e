"""The fast lab that the tests of hand-overs have."""

from tests.nodes.handoff.conftest import lab

__all__ = ["lab"]
