"""The proxy driver: the host's one gate to the fabric, shared by the provider instances of all its processes.

It owns the channel adapter and the connection manager, gives every connection an :class:`Endpoint`, and is where a
connection goes on living while control of its socket is between two processes. Provider instances call it; it answers
through the owner of the endpoint, synchronously, inside ``handle_frame``, ``handle_timeout`` or the command itself.

Set-up, with the data that the session protocol exchanges on the way:

==================  ==========================================  ================================================
who                 wire                                        here
==================  ==========================================  ================================================
active side         REQ (caller data: SDP Hello)                ``connect``; queue pair INIT
passive side        REQ arrives                                 a ``Request`` waits at the listener
passive side        REP (callee data: SDP HelloAck)             ``accept``: queue pair RTR and RTS; the REP leaves when
                                                                the caller's command ends, so after receives are posted
active side         RTU                                         REP arrives: RTR, RTS, ``on_connected`` (the owner posts
                                                                its receives in it), then the RTU
==================  ==========================================  ================================================
"""

from collections import deque
from collections.abc import Callable, Sequence

from fabric.cm.manager import (
    ConnectFailed,
    ConnectionManager,
    Disconnected,
    Established,
    Rejected,
    ReplyReceived,
    RequestReceived,
    TimewaitEnded,
)
from fabric.engine import Transmit
from fabric.ids import CommId
from fabric.rc.adapter import ChannelAdapter, DatagramReceived, QueuePairEvent
from fabric.rc.qp_state import QpState
from fabric.rc.queue_pair import CommunicationEstablished, Completion, FatalError
from fabric.rc.work import CompletionStatus, ReceiveWorkRequest, SendQueueRequest, SendWorkRequest, WorkCompletion
from fabric.rng import Stream
from fabric.units import Instant
from fabric.wire.cm import RejectReason
from provider.errors import WsaErrno, WsaError
from provider.san_provider.addresses import ip_text
from provider.san_provider.causes import errno_of, errno_of_reject
from provider.san_provider.config import ProxyConfig
from provider.san_provider.endpoint import Endpoint, EndpointOwner, EndpointState
from provider.san_provider.listener import Listener, Request
from provider.spi import Overlapped

ENDS, PART = 0, 1
"""Numbers of work requests: one that ends an operation of the owner, one after which others of it come."""


class ProxyDriver:
    """See the module text. Frames go in and out on port 0."""

    def __init__(self, adapter: ChannelAdapter, manager: ConnectionManager, config: ProxyConfig, rng: Stream) -> None:
        self.adapter = adapter
        self.manager = manager
        self.config = config
        self._rng = rng
        self._listeners: dict[int, Listener] = {}
        self._endpoints: dict[int, Endpoint] = {}
        self._by_comm_id: dict[CommId, Endpoint] = {}
        self._by_qpn: dict[int, Endpoint] = {}
        self._replies: deque[Endpoint] = deque()
        self._next_number = 1

    # ---------------------------------------------------------------- input

    def handle_frame(self, port: int, frame: bytes, now: Instant) -> None:
        """A frame from the fabric."""
        self.adapter.handle_frame(port, frame, now)
        self.settle(now)

    def handle_timeout(self, now: Instant) -> None:
        """Overdue work of adapter and connection manager."""
        self.adapter.handle_timeout(now)
        self.manager.handle_timeout(now)
        self.settle(now)

    # ------------------------------------------------------------- commands

    def listen(self, service_id: int, backlog: int, on_request: Callable[[Instant], None]) -> Listener:
        """Take connection requests for a service; ``backlog`` bounds those that wait. WSAEADDRINUSE if it is taken."""
        if service_id in self._listeners:
            raise WsaError(WsaErrno.WSAEADDRINUSE, f"service {service_id:#x} already has a listener")
        listener = self._listeners[service_id] = Listener(service_id, backlog, on_request)
        self.manager.listen(service_id)
        return listener

    def unlisten(self, listener: Listener, now: Instant) -> None:
        """Stop listening; requests that still wait are refused."""
        if self._listeners.pop(listener.service_id, None) is None:
            return
        self.manager.unlisten(listener.service_id)
        while listener.requests:
            self.refuse(listener.requests.popleft(), now)
        self.settle(now)

    def refuse(self, request: Request, now: Instant) -> None:
        """Turn a waiting request down: its peer's connect fails with WSAECONNREFUSED."""
        self.manager.reject(request.comm_id, RejectReason.CONSUMER_DEFINED, now=now)
        self.settle(now)

    def accept(self, request: Request, owner: EndpointOwner, callee_data: bytes, now: Instant) -> Endpoint:
        """Make a connection of a waiting request. The reply leaves with the next ``poll_transmit``."""
        endpoint = self._new_endpoint(request.remote_ip, owner, EndpointState.ACCEPTING)
        endpoint.comm_id = request.comm_id
        endpoint.callee_data = callee_data
        self._by_comm_id[request.comm_id] = endpoint
        endpoint.agree_on_reads(self.config, request.responder_resources, request.initiator_depth)
        self._bring_up(endpoint, request.remote_qpn, request.starting_psn, request.path_mtu, now)
        self._replies.append(endpoint)
        return endpoint

    def connect(
        self, remote_ip: bytes, service_id: int, owner: EndpointOwner, caller_data: bytes, now: Instant
    ) -> Endpoint:
        """Begin a connection; the owner hears ``on_connected`` or ``on_connect_failed``.

        Raises WSAEHOSTUNREACH for an address that is not on this fabric.
        """
        if not self.adapter.reaches(remote_ip):
            raise WsaError(WsaErrno.WSAEHOSTUNREACH, f"no host of this fabric has the address {ip_text(remote_ip)}")
        endpoint = self._new_endpoint(remote_ip, owner, EndpointState.CONNECTING)
        endpoint.comm_id = self.manager.connect(
            remote_ip,
            service_id,
            local_qpn=endpoint.queue_pair.qpn,
            starting_psn=endpoint.expected_psn,
            path_mtu=self.config.path_mtu,
            private_data=caller_data,
            retry_count=self.config.retry_count,
            rnr_retry=self.config.rnr_retry,
            ack_timeout=self.config.ack_timeout,
            responder_resources=self.config.responder_resources,
            initiator_depth=self.config.initiator_depth,
            local_ip=self.adapter.ip,
            now=now,
        )
        self._by_comm_id[endpoint.comm_id] = endpoint
        self.settle(now)
        return endpoint

    def send(self, endpoint: Endpoint, overlapped: Overlapped, now: Instant) -> None:
        """Send one message; completes through the owner."""
        self.post(endpoint, overlapped, [SendWorkRequest(ENDS, overlapped.data)], now)

    def post(self, endpoint: Endpoint, overlapped: Overlapped, work: Sequence[SendQueueRequest], now: Instant) -> None:
        """Begin an operation of one or more work requests, the last of them numbered ENDS, the others PART."""
        if endpoint.state not in (EndpointState.CONNECTED, EndpointState.ACCEPTING):
            raise WsaError(endpoint.lost or WsaErrno.WSAENOTCONN, "the connection is not up")
        endpoint.sends.append(overlapped)
        for request in work:
            self.adapter.post_send(endpoint.queue_pair.qpn, request, now)

    def receive(self, endpoint: Endpoint, overlapped: Overlapped, now: Instant) -> None:
        """Post one receive for the controlling instance; a message that already arrived completes it at once."""
        if endpoint.arrived:
            data = endpoint.arrived.popleft()
            overlapped.data = data
            if endpoint.owner is not None:
                endpoint.owner.on_complete(overlapped, None, len(data), now)
            return
        if endpoint.lost is not None:
            raise WsaError(endpoint.lost, "the connection is gone")
        endpoint.waiting.append(overlapped)
        if len(endpoint.waiting) > endpoint.posted:
            endpoint.posted += 1
            self.adapter.post_receive(endpoint.queue_pair.qpn, ReceiveWorkRequest(0, self.config.message_size), now)

    def take_back_receives(self, endpoint: Endpoint, now: Instant) -> None:
        """Complete the controlling instance's receives with success and zero bytes; the queue pair keeps its own."""
        waiting, endpoint.waiting = endpoint.waiting, deque()
        for overlapped in waiting:
            if endpoint.owner is not None:
                endpoint.owner.on_complete(overlapped, None, 0, now)

    def has_sends(self, endpoint: Endpoint) -> bool:
        """Whether messages are still unacknowledged by the peer's adapter."""
        return bool(endpoint.sends)

    def disconnect(self, endpoint: Endpoint, now: Instant, farewell: bytes = b"") -> None:
        """Tear the connection down (DREQ, with private data); safe to call in any state and again."""
        if endpoint.state in (EndpointState.DISCONNECTING, EndpointState.GONE):
            endpoint.owner = None
            return
        endpoint.owner = None
        was, endpoint.state = endpoint.state, EndpointState.DISCONNECTING
        if endpoint in self._replies:
            self._replies.remove(endpoint)
            self.manager.reject(endpoint.comm_id, RejectReason.CONSUMER_DEFINED, now=now)
        elif was is EndpointState.CONNECTING:
            self.manager.abandon(endpoint.comm_id, now)
        else:
            self.manager.disconnect(endpoint.comm_id, now, farewell)
        self._remove_queue_pair(endpoint, now)
        self.settle(now)

    # --------------------------------------------------------------- output

    def poll_transmit(self, now: Instant) -> Transmit | None:
        """The next frame for the fabric."""
        if self._replies:
            self._send_replies(now)
        while (datagram := self.manager.poll_transmit(now)) is not None:
            self.adapter.send_datagram(datagram.remote_ip, datagram.mad, now)
        return self.adapter.poll_transmit(now)

    def poll_timeout(self) -> Instant | None:
        """The earlier deadline of adapter and connection manager."""
        adapter, manager = self.adapter.poll_timeout(), self.manager.poll_timeout()
        if adapter is None or manager is None:
            return manager if adapter is None else adapter
        return min(adapter, manager)

    def endpoints(self) -> list[Endpoint]:
        """Every endpoint that still holds resources, oldest first."""
        return list(self._endpoints.values())

    # -------------------------------------------------------------- private

    def _new_endpoint(self, remote_ip: bytes, owner: EndpointOwner, state: EndpointState) -> Endpoint:
        queue_pair = self.adapter.create_queue_pair()
        queue_pair.modify(QpState.INIT)
        endpoint = Endpoint(self._next_number, queue_pair, remote_ip, owner, state, self._rng.getrandbits(24))
        self._next_number += 1
        self._endpoints[endpoint.number] = endpoint
        self._by_qpn[queue_pair.qpn] = endpoint
        return endpoint

    def _bring_up(self, endpoint: Endpoint, remote_qpn: int, send_psn: int, path_mtu: int, now: Instant) -> None:
        """INIT -> RTR -> RTS with what the peer told us."""
        endpoint.path_mtu = min(path_mtu, self.config.path_mtu)
        self.adapter.connect_queue_pair(
            endpoint.queue_pair.qpn,
            remote_ip=endpoint.remote_ip,
            remote_qpn=remote_qpn,
            path_mtu=endpoint.path_mtu,
            rq_psn=endpoint.expected_psn,
            min_rnr_timer=self.config.min_rnr_timer,
            max_dest_rd_atomic=endpoint.responder_resources,
        )
        endpoint.queue_pair.modify(
            QpState.RTS,
            sq_psn=send_psn,
            timeout=self.config.ack_timeout,
            retry_count=self.config.retry_count,
            rnr_retry=self.config.rnr_retry,
            max_rd_atomic=endpoint.read_depth,
        )

    def _send_replies(self, now: Instant) -> None:
        while self._replies:
            endpoint = self._replies.popleft()
            if endpoint.state is not EndpointState.ACCEPTING:
                continue  # the peer took its request back meanwhile
            self.manager.accept(
                endpoint.comm_id,
                local_qpn=endpoint.queue_pair.qpn,
                starting_psn=endpoint.expected_psn,
                private_data=endpoint.callee_data,
                rnr_retry=self.config.rnr_retry,
                responder_resources=endpoint.responder_resources,
                initiator_depth=endpoint.read_depth,
                now=now,
            )

    def settle(self, now: Instant) -> None:
        """Carry events between adapter, connection manager and owners until nothing moves."""
        poll_adapter, poll_manager = self.adapter.poll_event, self.manager.poll_event
        while True:
            event = poll_adapter()
            if event is not None:
                if type(event) is QueuePairEvent:
                    self._on_queue_pair_event(event, now)
                elif type(event) is DatagramReceived:
                    self.manager.handle_mad(event.source_ip, event.payload, now)
                continue
            cm_event = poll_manager()
            if cm_event is None:
                return
            self._on_manager_event(cm_event, now)

    def _on_queue_pair_event(self, event: QueuePairEvent, now: Instant) -> None:
        endpoint = self._by_qpn.get(event.qpn)
        if endpoint is None:
            return
        what = event.event
        if type(what) is Completion:
            self._on_completion(endpoint, what.completion, now)
        elif type(what) is CommunicationEstablished:
            self.manager.comm_established(endpoint.comm_id, now)
        elif type(what) is FatalError:
            self._lose(endpoint, errno_of(what.status), now)

    def _on_completion(self, endpoint: Endpoint, completion: WorkCompletion, now: Instant) -> None:
        failed = completion.status is not CompletionStatus.SUCCESS
        if completion.opcode != "receive":
            if completion.wr_id == PART:
                return
            overlapped = endpoint.sends.popleft()
            error = WsaErrno.WSAECONNRESET if failed else None
            if endpoint.owner is not None:
                endpoint.owner.on_complete(overlapped, error, len(overlapped.data) or overlapped.length, now)
            else:
                endpoint.completed.append((overlapped, error))
            return
        endpoint.posted -= 1
        if failed:
            return  # the loss of the connection is told once, by _lose
        if endpoint.waiting:
            overlapped = endpoint.waiting.popleft()
            overlapped.data = completion.data
            if endpoint.owner is not None:
                endpoint.owner.on_complete(overlapped, None, len(completion.data), now)
        else:
            endpoint.arrived.append(completion.data)

    def _on_manager_event(self, event: object, now: Instant) -> None:
        if isinstance(event, RequestReceived):
            self._on_request(event, now)
            return
        comm_id: CommId = event.comm_id  # type: ignore[attr-defined]
        endpoint = self._by_comm_id.get(comm_id)
        if endpoint is None:
            for listener in self._listeners.values():  # a request may be withdrawn before it is accepted
                if isinstance(event, ConnectFailed | Rejected | Disconnected):
                    listener.requests = deque(r for r in listener.requests if r.comm_id != comm_id)
            return
        if isinstance(event, ReplyReceived):
            reply = event.reply
            endpoint.agree_on_reads(self.config, reply.responder_resources, reply.initiator_depth)
            self._bring_up(endpoint, reply.local_qpn, reply.starting_psn, self.config.path_mtu, now)
            endpoint.state = EndpointState.CONNECTED
            owner = endpoint.owner
            if owner is not None:
                owner.on_connected(bytes(reply.private_data), now)
            if endpoint.state is EndpointState.CONNECTED:  # the owner may have thought better of it
                self.manager.ready(comm_id, now)
        elif isinstance(event, Established):
            if endpoint.state is EndpointState.ACCEPTING:
                endpoint.state = EndpointState.CONNECTED
                if endpoint.owner is not None:
                    endpoint.owner.on_connected(b"", now)
        elif isinstance(event, Rejected | ConnectFailed):
            error = errno_of_reject(event.reason) if isinstance(event, Rejected) else WsaErrno.WSAETIMEDOUT
            self._fail_connect(endpoint, error, now)
        elif isinstance(event, Disconnected):
            endpoint.farewell = event.private_data
            self._lose(endpoint, WsaErrno.WSAECONNRESET, now)
        elif isinstance(event, TimewaitEnded):
            self._forget(endpoint, now)

    def _on_request(self, event: RequestReceived, now: Instant) -> None:
        waiting = Request.of(event)
        listener = self._listeners.get(event.service_id)
        if listener is None or len(listener.requests) >= listener.backlog:
            self.refuse(waiting, now)
            return
        listener.requests.append(waiting)
        listener.on_request(now)

    def _fail_connect(self, endpoint: Endpoint, error: WsaErrno, now: Instant) -> None:
        owner, endpoint.owner = endpoint.owner, None
        accepting = endpoint.state is EndpointState.ACCEPTING
        endpoint.state = EndpointState.GONE
        endpoint.lost = error
        self._remove_queue_pair(endpoint, now)
        self._forget(endpoint, now)
        if owner is not None:
            if accepting:
                owner.on_connection_lost(WsaErrno.WSAECONNRESET, now)
            else:
                owner.on_connect_failed(error, now)

    def _lose(self, endpoint: Endpoint, error: WsaErrno, now: Instant) -> None:
        """The connection ended from outside: tell the owner once, keep what arrived for it to read."""
        if endpoint.lost is not None or endpoint.state not in (EndpointState.CONNECTED, EndpointState.ACCEPTING):
            return
        endpoint.lost = error
        endpoint.state = EndpointState.DISCONNECTING
        self.manager.disconnect(endpoint.comm_id, now)
        owner = endpoint.owner
        self._remove_queue_pair(endpoint, now)
        if owner is not None:
            owner.on_connection_lost(error, now)

    def _remove_queue_pair(self, endpoint: Endpoint, now: Instant) -> None:
        if self._by_qpn.pop(endpoint.queue_pair.qpn, None) is not None:
            self.adapter.destroy_queue_pair(endpoint.queue_pair.qpn)
            endpoint.sends.clear()
            endpoint.posted = 0

    def _forget(self, endpoint: Endpoint, now: Instant) -> None:
        self._endpoints.pop(endpoint.number, None)
        self._by_comm_id.pop(endpoint.comm_id, None)
        endpoint.state = EndpointState.GONE
