"""The asking side: one request to a node's control socket."""

import json
import socket
from pathlib import Path
from typing import Any

from fabric.errors import EnvironmentLacks, SanloomError
from nodes.control.server import ANSWER_MAX
from provider import ipc

TIMEOUT_SECONDS = 5.0


def ask(path: Path, operation: str, **members: Any) -> dict[str, Any]:
    """The node's result. EnvironmentLacks if nobody answers in TIMEOUT_SECONDS, SanloomError with the node's words."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            ipc.connect(control, str(path), TIMEOUT_SECONDS)
            control.send(json.dumps({"id": 1, "op": operation, **members}).encode())
            packet = control.recv(ANSWER_MAX)
    except OSError as error:
        raise EnvironmentLacks(f"node {path.stem} does not answer ({error.strerror or error})") from None
    try:
        reply: dict[str, Any] = json.loads(packet)
    except ValueError:
        raise EnvironmentLacks(f"node {path.stem} hung up without an answer") from None
    if "error" in reply:
        raise SanloomError(f"node {path.stem}: {reply['error']['text']}")
    result: dict[str, Any] = reply["result"]
    return result
