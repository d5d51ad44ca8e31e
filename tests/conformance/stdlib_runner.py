"""Runs classes of the standard library's own ``test.test_socket`` on ``provider.socket``, on a host of a lab.

``python -m tests.conformance.stdlib_runner CLASS...`` prints {"Class.test": "passed" | "skipped: ..." | "what
failed"} as JSON. Within the standard test module the name ``socket`` is exchanged, and nothing else; client and
server of a test are threads of this process, so their connections go from the host to itself.
"""

import faulthandler
import json
import sys
import unittest
from typing import Any

import provider.socket

GIVE_UP_SECONDS = 60


class _Outcomes(unittest.TestResult):
    """What became of each test."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.found.setdefault(_name(test), "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.found[_name(test)] = f"skipped: {reason}"

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self.found[_name(test)] = f"{err[0].__name__}: {err[1]}"

    addFailure = addError


def _name(test: unittest.TestCase) -> str:
    return ".".join(test.id().split(".")[-2:])


def main() -> int:
    """Entry point."""
    from test import test_socket
    from test.support import socket_helper

    faulthandler.dump_traceback_later(GIVE_UP_SECONDS, exit=True)
    test_socket.socket = socket_helper.socket = provider.socket  # type: ignore[attr-defined]
    outcomes = _Outcomes()
    for name in sys.argv[1:]:
        case = getattr(test_socket, name)
        case.__unittest_skip__ = False  # TestSocketSharing is for Windows, where the original has ``share``
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(outcomes)
    print(json.dumps(outcomes.found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
