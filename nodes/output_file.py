"""A file that a node writes while it runs, on a disk that may be full.

What cannot be written is lost and counted, and the node goes on: a lab must not fall over because its journal does. A
piece (a line, a block) is in the file whole or not at all, so what was written stays readable.
"""

import os
from pathlib import Path


class OutputFile:
    """``buffer``: bytes that may wait before they are written. ``resume``: whether to try again after a failure;
    without it nothing is written any more, for files in which no piece may be missing. OSError if it cannot be opened.
    """

    def __init__(self, path: Path, *, buffer: int = 0, resume: bool = True) -> None:
        self.lost = 0
        """Pieces that could not be written."""
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._size = os.lseek(self._fd, 0, os.SEEK_END)
        self._buffer, self._resume = buffer, resume
        self._pending = bytearray()
        self._pieces = 0
        self._broken = False

    def write(self, piece: bytes) -> None:
        """Append a piece."""
        if self._broken:
            self.lost += 1
            return
        self._pending += piece
        self._pieces += 1
        if len(self._pending) >= self._buffer:
            self.flush()

    def write_text(self, piece: str) -> None:
        """Append a piece in UTF-8."""
        self.write(piece.encode())

    def flush(self) -> None:
        """Write what waits."""
        if not self._pending:
            return
        try:
            written = 0
            with memoryview(self._pending) as view:
                while written < len(view):
                    written += os.write(self._fd, view[written:])
        except OSError:
            self.lost += self._pieces
            self._broken = not self._resume
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)
        else:
            self._size += written
        self._pending.clear()
        self._pieces = 0

    def close(self) -> None:
        """Write what waits and close."""
        self.flush()
        os.close(self._fd)
