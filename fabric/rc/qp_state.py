"""Queue pair states and the moves between them (InfiniBand Architecture vol. 1, 10.3; wire.md 1.8).

A queue pair is born in RESET and is brought up by its consumer: INIT may post receives and drops what arrives; RTR
answers requests but sends none; RTS does both. ERR flushes all work with "flushed in error"; from there only RESET
leads on. SQD (send queue drained) and SQE (send queue error, not for reliable connection) complete the standard's
picture. A move needs the attributes that its entry names; a move without entry is the caller's mistake.
"""

from enum import Enum

from fabric.errors import IllegalTransition, SanloomError


class QpState(Enum):
    """States of a queue pair."""

    RESET = "RESET"
    INIT = "INIT"
    RTR = "RTR"
    RTS = "RTS"
    SQD = "SQD"
    ERR = "ERR"


_RTR = ("builder", "remote_ip", "remote_qpn", "path_mtu", "rq_psn", "min_rnr_timer")
_RTS = ("sq_psn", "timeout", "retry_count", "rnr_retry")
QP_TRANSITIONS: dict[tuple[QpState, QpState], tuple[str, ...]] = {
    (QpState.RESET, QpState.INIT): (),
    (QpState.INIT, QpState.INIT): (),
    (QpState.INIT, QpState.RTR): _RTR,
    (QpState.RTR, QpState.RTS): _RTS,
    (QpState.RTS, QpState.RTS): (),
    (QpState.RTS, QpState.SQD): (),
    (QpState.SQD, QpState.RTS): (),
    **{(state, QpState.ERR): () for state in QpState},
    **{(state, QpState.RESET): () for state in QpState},
}
"""(from, to) -> the attributes that the move requires."""


def check_transition(current: QpState, target: QpState, attributes: dict[str, object]) -> None:
    """IllegalTransition if the move does not exist, SanloomError if an attribute is missing."""
    required = QP_TRANSITIONS.get((current, target))
    if required is None:
        raise IllegalTransition("queue pair", current.value, f"modify to {target.value}", "consumer")
    missing = [name for name in required if name not in attributes]
    if missing:
        raise SanloomError(f"queue pair: {current.value} -> {target.value} needs {', '.join(missing)}")
