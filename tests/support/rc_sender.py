"""A requester on its own, with the messages and acknowledgements of a test around it."""

from fabric.rc.requester import Requester
from fabric.rc.work import CompletionStatus, SendWorkRequest, WorkCompletion
from fabric.units import SECOND
from fabric.wire.headers import local_ack_timeout

OK = CompletionStatus.SUCCESS
ACK, SEQUENCE, INVALID, ACCESS, OPERATIONAL = 0x1F, 0x60, 0x61, 0x62, 0x63
TIMEOUT = local_ack_timeout(14)


class Sender:
    """A requester and what it completed; PSNs start at ``psn`` and messages are numbered from 1."""

    def __init__(
        self, *, mtu: int = 256, psn: int = 100, timeout: int = TIMEOUT, retries: int = 3, rnr_retry: int = 3
    ) -> None:
        self.done: list[WorkCompletion] = []
        self.posted = 0
        self.requester = Requester(
            path_mtu=mtu,
            next_psn=psn,
            timeout=timeout,
            retry_count=retries,
            rnr_retry=rnr_retry,
            complete=self.done.append,
        )

    def post(self, *sizes: int, solicited: bool = False) -> None:
        for size in sizes:
            self.posted += 1
            self.requester.post(SendWorkRequest(self.posted, bytes([self.posted & 0xFF]) * size, solicited))

    def sent(self, now: int = 0, limit: int = 1000) -> list[tuple[int, int, bytes, bool, bool]]:
        out = []
        while len(out) < limit and (packet := self.requester.poll(now)) is not None:
            out.append((packet[0], packet[1], bytes(packet[2]), packet[3], packet[4]))
        return out

    def psns(self, now: int = 0, limit: int = 1000) -> list[int]:
        return [packet[0] for packet in self.sent(now, limit)]

    def answer(self, psn: int, syndrome: int = ACK, now: int = 0) -> CompletionStatus | None:
        return self.requester.handle_acknowledge(psn, syndrome, now)

    def time_out(self) -> CompletionStatus | None:
        assert self.requester.deadline is not None
        return self.requester.handle_timeout(self.requester.deadline)

    def finished(self) -> list[int]:
        """Numbers of the messages that succeeded."""
        assert all(one.opcode == "send" for one in self.done)
        return [one.wr_id for one in self.done if one.status is OK]


def nothing_left(sender: Sender) -> bool:
    requester = sender.requester
    return not requester.has_work() and requester.deadline is None and requester.poll(10 * SECOND) is None
