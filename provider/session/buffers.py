"""The byte queues of a session: what the application said and the peer has not, and the other way round."""

from collections import deque


class SendBuffer:
    """Accepted bytes in the order of sending. Chunks stay as they came until a message takes them."""

    def __init__(self) -> None:
        self._chunks: deque[memoryview] = deque()
        self.size = 0

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Accept ``data``; what could change under us is copied."""
        stable = data if isinstance(data, bytes) else bytes(data)
        if stable:
            self._chunks.append(memoryview(stable))
            self.size += len(stable)

    def take(self, limit: int) -> bytes | memoryview:
        """Remove up to ``limit`` bytes from the front; no copy if they lie in one chunk."""
        chunks = self._chunks
        first = chunks[0]
        if len(first) > limit:
            chunks[0] = first[limit:]
            self.size -= limit
            return first[:limit]
        if len(first) == limit or len(chunks) == 1:
            chunks.popleft()
            self.size -= len(first)
            return first
        parts: list[memoryview] = []
        room = limit
        while chunks and room:
            first = chunks.popleft()
            if len(first) > room:
                chunks.appendleft(first[room:])
                first = first[:room]
            parts.append(first)
            room -= len(first)
        self.size -= limit - room
        return b"".join(parts)

    def clear(self) -> None:
        """Forget everything."""
        self._chunks.clear()
        self.size = 0


class ReceiveBuffer:
    """Unread bytes. Bytes taken back from a process come before everything that arrived and occupy no receive."""

    def __init__(self) -> None:
        self._returned: deque[memoryview] = deque()
        self._arrived: deque[memoryview] = deque()
        self.size = 0

    @property
    def held(self) -> int:
        """Receives that the application occupies: messages not read to their end."""
        return len(self._arrived)

    def append(self, payload: memoryview) -> None:
        """One message's payload arrived; not empty."""
        self._arrived.append(payload)
        self.size += len(payload)

    def push_front(self, data: bytes) -> None:
        """Bytes that a process had been given and did not read."""
        if data:
            self._returned.appendleft(memoryview(bytes(data)))
            self.size += len(data)

    def peek(self, limit: int) -> bytes:
        """Up to ``limit`` bytes from the front, which stay."""
        parts: list[memoryview] = []
        for chunks in (self._returned, self._arrived):
            for chunk in chunks:
                if limit <= 0:
                    break
                parts.append(chunk[:limit])
                limit -= len(chunk)
        return b"".join(parts)

    def consume(self, count: int) -> None:
        """Drop ``count`` bytes from the front; there must be so many."""
        assert 0 <= count <= self.size, f"{count} of {self.size} unread bytes consumed"
        self.size -= count
        while count:
            chunks = self._returned or self._arrived
            first = chunks[0]
            if len(first) > count:
                chunks[0] = first[count:]
                return
            chunks.popleft()
            count -= len(first)
