"""The destination process of the SAN scenario; started by ``handoff_source``, spoken to on standard input and
output.
"""

import argparse
import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

from nodes.apps.handoff_source import copy
from nodes.apps.steps import report, step
from provider import socket

ROLE = "worker"


def receive(key: str) -> dict[str, Any]:
    """The source's next message that has ``key``; others are repetitions."""
    for line in iter(sys.stdin.readline, ""):
        message: dict[str, Any] = json.loads(line)
        if key in message:
            return message
    raise EOFError("the source ended")


def send(copies: int, **message: Any) -> None:
    """A message to the source; a fault plan may have it lost or repeated."""
    sys.stdout.write((json.dumps(message) + "\n") * copies)
    sys.stdout.flush()


def main() -> int:
    """Entry point; status 0 when the socket was used and handed back."""
    parser = argparse.ArgumentParser(prog="handoff_worker", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mode", choices=["suspend", "local", "rehome"], default=None)
    parser.add_argument("--timeout", type=float, default=120.0)
    options = parser.parse_args()
    with step(ROLE, 3) as copies:
        receive("ask")
        send(copies, pid=os.getpid())
    with step(ROLE, 7):
        message = receive("info")
    with step(ROLE, 8):
        connection = socket.fromshare(base64.b64decode(message["info"]))
        connection.settimeout(options.timeout)
    with step(ROLE, 9):
        offset, count = int(message["offset"]), int(message["count"])
        copy(connection, options.out, offset, min(1, count))
        report(ROLE, "first byte")
        copy(connection, options.out, offset + 1, count - 1)
    with step(ROLE, 10):
        info = connection.share(os.getppid(), options.mode, back=True)
    with step(ROLE, 11) as copies:
        send(copies, info=base64.b64encode(info).decode())
    with step(ROLE, 12):
        connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
