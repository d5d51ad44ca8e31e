"""The wire: RoCEv2 frames, connection management and SDP messages, captures. Bytes are handled here and nowhere
else.
"""

from fabric.wire.codec import decode, encode
from fabric.wire.headers import Frame, MalformedFrame

__all__ = ["Frame", "MalformedFrame", "decode", "encode"]
