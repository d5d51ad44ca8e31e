"""The target of the generic scenario; started by ``generic_source``, spoken to on standard input and output."""

import argparse
import base64
import os
import sys
from pathlib import Path

from nodes.apps.handoff_source import copy
from nodes.apps.handoff_worker import receive, send
from nodes.apps.steps import report, step
from provider import socket

ROLE, SCENARIO = "worker", "generic"


def main() -> int:
    """Entry point; status 0 when the rest of the file was read and the session ended gracefully."""
    parser = argparse.ArgumentParser(prog="generic_worker", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--timeout", type=float, default=120.0)
    options = parser.parse_args()
    with step(ROLE, 3, SCENARIO) as copies:
        receive("ask")
        send(copies, pid=os.getpid())
    with step(ROLE, 7, SCENARIO):
        message = receive("info")
    with step(ROLE, 8, SCENARIO):
        connection = socket.fromshare(base64.b64decode(message["info"]))
        connection.settimeout(options.timeout)
    with step(ROLE, 9, SCENARIO):
        copy(connection, options.out, int(message["offset"]), int(message["count"]))
    connection.shutdown(socket.SHUT_WR)
    if connection.recv(1):
        raise AssertionError("bytes after the end of the file")
    connection.close()
    report(ROLE, "done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
