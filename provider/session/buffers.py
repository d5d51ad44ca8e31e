"""The two byte queues of a session."""

from collections import deque


class SendBuffer:
    """Bytes accepted from the application and not yet in a message."""

    def __init__(self) -> None:
        self._chunks: deque[memoryview] = deque()
        self.size = 0

    def add(self, data: bytes) -> None:
        """Append."""
        if data:
            self._chunks.append(memoryview(data))
            self.size += len(data)

    def take(self, limit: int) -> bytes:
        """Up to ``limit`` bytes from the front."""
        parts: list[memoryview] = []
        room = limit
        chunks = self._chunks
        while room and chunks:
            chunk = chunks[0]
            if len(chunk) <= room:
                parts.append(chunks.popleft())
                room -= len(chunk)
            else:
                parts.append(chunk[:room])
                chunks[0] = chunk[room:]
                room = 0
        self.size -= limit - room
        return b"".join(parts)

    def clear(self) -> None:
        """Forget everything."""
        self._chunks.clear()
        self.size = 0


class ReceiveBuffer:
    """Bytes received and not yet consumed, as the chunks they came in: each but those pushed back holds a receive
    buffer.
    """

    def __init__(self) -> None:
        self._chunks: deque[tuple[memoryview, bool]] = deque()
        self.size = 0
        self.freed = 0
        """Receive buffers that became free since the switch posted last."""

    def add(self, data: memoryview) -> None:
        """Append the payload of one message."""
        self._chunks.append((data, True))
        self.size += len(data)

    def push_front(self, data: bytes) -> None:
        """Bytes that a process had been given and has not read."""
        if data:
            self._chunks.appendleft((memoryview(data), False))
            self.size += len(data)

    def peek(self, limit: int) -> bytes:
        """Up to ``limit`` bytes from the front, left in place."""
        if not self._chunks:
            return b""
        first = self._chunks[0][0]
        if len(first) >= limit or len(self._chunks) == 1:
            return bytes(first[:limit])
        parts, room = [], limit
        for chunk, _ in self._chunks:
            parts.append(chunk[:room])
            room -= len(parts[-1])
            if not room:
                break
        return b"".join(parts)

    def consume(self, count: int) -> None:
        """Drop ``count`` bytes from the front."""
        assert 0 <= count <= self.size, "more consumed than was received"
        self.size -= count
        chunks = self._chunks
        while count:
            chunk, holds = chunks[0]
            if len(chunk) > count:
                chunks[0] = (chunk[count:], holds)
                return
            count -= len(chunk)
            chunks.popleft()
            self.freed += holds
