"""What a process is told of one of its descriptors."""

from typing import Any

from provider.sockets_switch.agent_half import AgentHalf
from provider.sockets_switch.shared_socket import Descriptor, SocketPhase


def describe(half: AgentHalf, descriptor: Descriptor, *, returned: bool) -> dict[str, Any]:
    """State, names, pending error, and who controls the socket; ``returned``: a fresh data channel waits for it."""
    socket = descriptor.socket
    controlling = half.core.controlling(socket)
    if socket.ended and socket.phase is not SocketPhase.CONNECTING:
        control = "aborted"
    elif half.is_in_transfer(socket):
        control = "transfer"
    else:
        relative = descriptor.is_relative(controlling)
        control = "yours" if controlling is descriptor else "relative" if relative else "other"
    return {
        "state": socket.phase.value,
        "local": socket.local,
        "peer": socket.remote,
        "error": int(socket.error or 0),
        "control": control,
        "controller": controlling.owner.process.pid if controlling is not None else 0,
        "returned": returned,
        "epoch": half.core.registry.epoch(socket.number),
    }
