"""``python -m nodes.control.ask SOCKET OPERATION [MEMBERS]``, or ``SOCKET capture [LINK...]``: a node's control socket
from the command line. MEMBERS are a JSON object.

For whoever cannot reach the socket itself, such as a launcher outside the container. Prints the result as JSON;
``capture`` writes pcapng to standard output until the reader goes away or standard input ends.
"""

import json
import os
import select
import socket
import sys
from pathlib import Path
from typing import Any

from fabric.errors import SanloomError, UsageError
from nodes.control import client
from provider import ipc

CHUNK = 1 << 18


def main() -> int:
    """Entry point."""
    path, operation, rest = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    try:
        if operation != "capture":
            print(json.dumps(client.ask(path, operation, **_members(rest))))
            return 0
        return _capture(path, rest)
    except SanloomError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _members(arguments: list[str]) -> dict[str, Any]:
    try:
        (members,) = map(json.loads, arguments or ["{}"])
    except ValueError:
        members = None
    if not isinstance(members, dict) or members.keys() & {"path", "operation"}:
        raise UsageError("MEMBERS: expected one JSON object")
    return members


def _capture(path: Path, links: list[str]) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        ipc.connect(control, str(path), client.TIMEOUT_SECONDS)
        control.send(json.dumps({"id": 1, "op": "capture", "links": links or None}).encode())
        answer, descriptors, _, _ = socket.recv_fds(control, CHUNK, 1)
        if not descriptors:
            sys.stderr.write(f"{json.loads(answer)['error']['text']}\n")
            return 2
        try:
            while True:
                ready, _, _ = select.select([descriptors[0], 0], [], [])
                if 0 in ready and not os.read(0, CHUNK):
                    return 0
                if descriptors[0] in ready:
                    data = os.read(descriptors[0], CHUNK)
                    if not data:
                        return 0
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0


if __name__ == "__main__":
    sys.exit(main())
