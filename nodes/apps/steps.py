"""The seventeen steps of the SAN hand-over scenario and the ten of the generic page, as an application reports them.

Each step is marked before and after, in the agent's journal (event ``handoff.san.STEP.before``) and on standard
output as a line of JSON, so that whoever started the application can follow it. Steps 5, 8, 10 and 14 of the SAN
scenario are SPI calls: the agent writes their journal records itself, at the moment of the call.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from provider.client.agent_connection import agent

TITLES = {
    1: "WSPSocket, WSPConnect",
    2: "request destination process id",
    3: "receive the request and respond",
    4: "receive the process id",
    5: "WSPDuplicateSocket",
    6: "send WSAPROTOCOL_INFOW to the destination",
    7: "receive WSAPROTOCOL_INFOW",
    8: "WSPSocket: descriptor for the shared socket",
    9: "use the shared socket for data exchange",
    10: "WSPDuplicateSocket back to the source",
    11: "send WSAPROTOCOL_INFOW back",
    12: "WSPCloseSocket: the descriptor, not the socket",
    13: "receive WSAPROTOCOL_INFOW",
    14: "WSPSocket: control returns",
    15: "WSPCloseSocket: the original descriptor",
    16: "gracefully terminate the session",
    17: "WSPCloseSocket: the socket and its connection",
}
"""What happens at each step; 7 and 13 stand in the generic page only (winsock-direct.md, part a1)."""

GENERIC_TITLES = {
    1: "WSPSocket, WSPConnect",
    2: "request target process id",
    3: "receive the request and respond",
    4: "receive the process id",
    5: "WSPDuplicateSocket",
    6: "send WSAPROTOCOL_INFOW to the target",
    7: "receive WSAPROTOCOL_INFOW",
    8: "WSPSocket: descriptor for the shared socket",
    9: "use the shared socket for data exchange",
    10: "WSPCloseSocket: the source's descriptor",
}
"""The generic page (winsock-direct.md, part a2): nothing is handed back."""

_BY_THE_AGENT = {"san": (5, 8, 10, 14), "generic": ()}


def report(role: str, event: str, **members: Any) -> None:
    """One line of JSON on standard output."""
    line = json.dumps({"at": time.monotonic_ns(), "role": role, "event": event, **members})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextmanager
def step(role: str, number: int, scenario: str = "san") -> Iterator[int]:
    """Mark a step around its work; gives how often its message, if it sends one, goes out: once without faults."""
    yield _mark(role, number, "before", scenario)
    _mark(role, number, "after", scenario)


def _mark(role: str, number: int, moment: str, scenario: str) -> int:
    copies = 1
    if number not in _BY_THE_AGENT[scenario]:
        copies = agent().call("mark", scenario=scenario, step=number, moment=moment)["copies"]
    report(role, "step", step=number, moment=moment)
    return copies
