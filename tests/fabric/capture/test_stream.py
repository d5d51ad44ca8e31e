"""Captured frames as pcapng: interfaces, times, comments, flags; read back by our reader and by scapy's."""

import io

from scapy.utils import rdpcap

from fabric.capture import IN, OUT, CapturedFrame
from fabric.capture.stream import CaptureStream, has_icrc_error
from fabric.wire.pcapng import CapturedPacket, PcapngReader
from tests.support.captures import roce_frame

EPOCH_OFFSET = 1_700_000_000_123_456_789


def written(*frames: CapturedFrame, check_icrc: bool = False) -> tuple[bytes, list[CapturedPacket]]:
    data = bytearray()
    stream = CaptureStream(data.extend, epoch_offset=EPOCH_OFFSET, check_icrc=check_icrc)
    stream.write_all(frames)
    reader = PcapngReader()
    reader.feed(bytes(data))
    return bytes(data), list(reader.packets())


def test_frame_comes_back_with_everything_known_about_it():
    frame = roce_frame()
    _, packets = written(
        CapturedFrame(5, "client->s1", OUT, frame, "dropped by loss on client->s1 (frame 17)", 17),
        CapturedFrame(7, "s1->client", IN, frame),
    )
    first, second = packets
    assert (first.interface_name, first.interface_description) == ("client->s1", "client->s1 entry")
    assert first.at_ns == EPOCH_OFFSET + 5
    assert first.data == frame
    assert list(first.comments) == ["dropped by loss on client->s1 (frame 17)"]
    assert (first.direction, first.packet_id, first.crc_error) == ("out", 17, False)
    assert (second.interface_name, second.interface_description) == ("s1->client", "s1->client exit")
    assert (second.direction, second.packet_id, list(second.comments)) == ("in", None, [])


def test_both_sides_of_a_link_are_interfaces_of_their_own_and_announced_once():
    data = bytearray()
    stream = CaptureStream(data.extend, epoch_offset=0)
    assert [stream.add_link("a->b", direction) for direction in (OUT, IN, OUT)] == [0, 1, 0]
    stream.write(CapturedFrame(1, "a->b", IN, b"x" * 60))
    assert bytes(data).count(b"a->b exit") == 1


def test_missing_frames_are_told_in_the_comment():
    _, (alone, added) = written(
        CapturedFrame(1, "a->b", OUT, b"x", missing=3), CapturedFrame(2, "a->b", OUT, b"x", "held", missing=1)
    )
    assert alone.comments[0].startswith("3 frames before this one are missing")
    assert added.comments[0].startswith("held; 1 frames before this one")


def test_crc_flag_is_set_only_for_a_wrong_icrc_and_only_if_asked():
    good = roce_frame()
    wrong = good[:-1] + bytes([good[-1] ^ 1])
    frames = [CapturedFrame(1, "a->b", OUT, data) for data in (good, wrong, good[:40], b"")]
    assert [packet.crc_error for packet in written(*frames, check_icrc=True)[1]] == [False, True, False, False]
    assert [packet.crc_error for packet in written(*frames)[1]] == [False] * 4
    assert [has_icrc_error(data) for data in (good, wrong)] == [False, True]


def test_scapy_reads_the_stream():
    data, _ = written(CapturedFrame(5, "client->s1", OUT, roce_frame(), "held by a fault"))
    (packet,) = rdpcap(io.BytesIO(data))
    assert bytes(packet) == roce_frame()
    assert packet.sniffed_on == "client->s1"
    assert packet.comments == [b"held by a fault"]
    assert packet.direction == 2
    assert int(packet.time * 10**9) == EPOCH_OFFSET + 5
