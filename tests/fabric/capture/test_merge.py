"""Merging captures: order, interfaces, what is carried over, bounds."""

import io
import random

import pytest

from fabric.capture.merge import LiveMerge, MergeStatistics, merge_captures
from fabric.units import MILLISECOND
from fabric.wire.pcapng import CapturedPacket, MalformedCapture, PcapngReader, PcapngWriter
from tests.support.captures import pcapng

EPOCH = 1_700_000_000 * 10**9


def read(data: bytes) -> list[CapturedPacket]:
    reader = PcapngReader()
    reader.feed(data)
    return list(reader.packets())


def merged(*captures: bytes, **options: int) -> list[CapturedPacket]:
    data = bytearray()
    count = merge_captures([io.BytesIO(capture) for capture in captures], data.extend, **options)
    packets = read(bytes(data))
    assert len(packets) == count
    return packets


def times(packets: list[CapturedPacket]) -> list[int]:
    return [packet.at_ns - EPOCH for packet in packets]


def at(*offsets: int, link: str = "a->b") -> list[tuple[int, str, bytes]]:
    return [(EPOCH + offset, link, b"%s %d" % (link.encode(), offset)) for offset in offsets]


def test_captures_interleave_by_time():
    packets = merged(pcapng(at(1, 4, 5)), pcapng(at(2, 3, 9, link="b->a")))
    assert times(packets) == [1, 2, 3, 4, 5, 9]
    assert [packet.data for packet in packets][:2] == [b"a->b 1", b"b->a 2"]
    assert [packet.interface_name for packet in packets] == ["a->b", "b->a", "b->a", "a->b", "a->b", "b->a"]


def test_capture_slightly_out_of_order_is_put_right():
    seed = 11
    rng = random.Random(seed)
    order = sorted(range(2_000), key=lambda number: number + rng.uniform(0, 30))
    assert order != sorted(order)
    packets = merged(pcapng(at(*order)), pcapng(at(*range(0, 2_000, 7))), window=40)
    assert times(packets) == sorted(times(packets)), f"seed {seed}"
    assert len(packets) == 2_000 + len(range(0, 2_000, 7))


def test_equal_times_keep_the_order_of_sources_and_within_a_source():
    first = pcapng([(EPOCH, "a->b", b"1"), (EPOCH, "a->b", b"2")])
    second = pcapng([(EPOCH, "c->d", b"3"), (EPOCH, "c->d", b"4")])
    assert [packet.data for packet in merged(first, second)] == [b"1", b"2", b"3", b"4"]


def test_two_sides_of_a_link_stay_two_interfaces_and_one_seen_twice_is_one():
    entry, leaving = pcapng(at(1)), pcapng(at(2), side="exit")
    data = bytearray()
    merge_captures([io.BytesIO(capture) for capture in (entry, leaving, entry)], data.extend)
    assert [packet.interface_description for packet in read(bytes(data))] == ["a->b entry", "a->b entry", "a->b exit"]
    assert bytes(data).count(b"a->b entry") == 1


def test_comment_direction_crc_flag_and_packet_id_are_carried_over():
    data = bytearray()
    writer = PcapngWriter(data.extend)
    interface = writer.add_interface("a->b", "a->b entry")
    writer.write_packet(interface, EPOCH, b"x", comment="why", direction="out", crc_error=True, packet_id=9)
    (packet,) = merged(bytes(data))
    assert (list(packet.comments), packet.direction, packet.crc_error, packet.packet_id) == (["why"], "out", True, 9)


def test_capture_cut_short_gives_what_is_whole():
    whole = pcapng(at(1, 2, 3))
    assert times(merged(whole[:-5])) == [1, 2]
    assert merged(b"") == []
    assert merged() == []


def test_what_is_no_capture_is_refused():
    with pytest.raises(MalformedCapture):
        merged(b"this is no capture" * 10)


def live(window: int = 10 * MILLISECOND, **options: int) -> tuple[LiveMerge, bytearray]:
    data = bytearray()
    return LiveMerge(data.extend, window=window, **options), data


def test_live_merge_holds_packets_until_nothing_earlier_is_expected():
    merge, data = live(window=10)
    first, second = merge.add_source(), merge.add_source()
    merge.feed(first, pcapng(at(100, 104)))
    merge.feed(second, pcapng(at(101, 103, link="b->a")))
    assert times(read(bytes(data))) == []
    merge.advance(EPOCH + 112)
    assert times(read(bytes(data))) == [100, 101]
    merge.finish()
    assert times(read(bytes(data))) == [100, 101, 103, 104]
    assert merge.statistics() == MergeStatistics(packets=4, late=0, held=0)


def test_live_merge_goes_on_by_what_the_packets_say():
    merge, data = live(window=10)
    source = merge.add_source()
    merge.feed(source, pcapng(at(100, 105, 110, 120)))
    assert times(read(bytes(data))) == [100, 105, 110]


def test_live_merge_takes_bytes_in_any_pieces():
    capture = pcapng(at(*range(20)))
    merge, data = live()
    source = merge.add_source()
    for start in range(0, len(capture), 7):
        merge.feed(source, capture[start : start + 7])
    merge.finish()
    assert times(read(bytes(data))) == list(range(20))


def test_live_packet_later_than_the_window_is_written_and_counted():
    merge, data = live(window=10)
    fast, slow = merge.add_source(), merge.add_source()
    merge.feed(fast, pcapng(at(100, 200)))
    merge.feed(slow, pcapng(at(50, link="b->a")))
    assert times(read(bytes(data))) == [100, 50]
    assert merge.statistics() == MergeStatistics(packets=2, late=1, held=1)


def test_live_merge_is_bounded():
    merge, data = live(window=10**9, max_packets=5)
    merge.feed(merge.add_source(), pcapng(at(*range(12))))
    assert merge.statistics() == MergeStatistics(packets=7, late=0, held=5)
    assert times(read(bytes(data))) == list(range(7))


def test_damaged_live_source_does_not_hurt_the_others():
    merge, data = live(window=10)
    good, bad = merge.add_source(), merge.add_source()
    merge.feed(good, pcapng(at(1)))
    with pytest.raises(MalformedCapture):
        merge.feed(bad, b"this is no capture" * 10)
    merge.feed(good, b"")
    merge.finish()
    assert times(read(bytes(data))) == [1]
