"""One direction of a link: due times to the nanosecond, the queue, changes of settings, statistics."""

import pytest

from fabric.engine import Transmit
from fabric.ids import LinkName
from fabric.link import FrameDropped, LinkModel, LinkSettings
from fabric.rng import draws
from fabric.units import MICROSECOND, MILLISECOND, SECOND, transmission_time
from tests.support.contract import check_engine

GBIT = 10**9
FRAME = bytes(1000)
SERIALISED = 8 * MICROSECOND  # 1000 bytes at 1 Gbit/s
NAME = LinkName("client->s1")


def link(*, seed: int = 7, name: str = NAME, **settings: float) -> LinkModel:
    return LinkModel(LinkName(name), LinkSettings(**settings), seed)


def send(model: LinkModel, now: int, frame: bytes = FRAME) -> int | None:
    """The due time of ``frame`` entering at ``now``, or None if it was dropped."""
    model.handle_frame(0, frame, now)
    transmit = model.poll_transmit(now)
    assert model.poll_transmit(now) is None
    if transmit is None:
        return None
    assert transmit == Transmit(1, frame, transmit.at)
    return transmit.at


def drops(model: LinkModel) -> list[FrameDropped]:
    return list(iter(model.poll_event, None))


def test_link_without_settings_delivers_at_once():
    assert send(link(), 5 * SECOND) == 5 * SECOND


def test_latency_is_added_exactly():
    assert send(link(latency=2 * MILLISECOND), SECOND) == SECOND + 2 * MILLISECOND


def test_rate_serialises_frames_one_after_the_other():
    model = link(rate=GBIT, latency=MILLISECOND)
    due = [send(model, SECOND) for _ in range(3)]
    assert due == [SECOND + MILLISECOND + k * SERIALISED for k in (1, 2, 3)]


def test_idle_serialiser_starts_at_entry_and_a_busy_one_at_the_end_of_the_frame_before():
    model = link(rate=GBIT)
    assert send(model, 0) == SERIALISED
    assert send(model, SERIALISED - 1) == 2 * SERIALISED
    assert send(model, 2 * SERIALISED) == 3 * SERIALISED
    assert send(model, SECOND) == SECOND + SERIALISED


def test_transmission_time_is_rounded_up_as_in_units():
    model, size = link(rate=3 * GBIT), 1001
    assert send(model, 0, bytes(size)) == transmission_time(size, 3 * GBIT) == 2670


def test_full_queue_drops_the_newest_and_one_departure_makes_room_for_one():
    model = link(rate=GBIT, queue=2)
    assert [send(model, 0) is not None for _ in range(5)] == [True, True, True, False, False]  # 1 in service, 2 wait
    assert [(drop.number, drop.reason, drop.at) for drop in drops(model)] == [(4, "queue", 0), (5, "queue", 0)]
    assert send(model, SERIALISED - 1) is None
    assert send(model, SERIALISED) == 4 * SERIALISED
    assert send(model, SERIALISED) is None
    assert model.statistics().dropped_by("queue") == 4
    assert model.statistics().queue_high_water == 2


def test_queue_of_zero_takes_a_frame_only_while_the_serialiser_is_idle():
    model = link(rate=GBIT, queue=0)
    assert send(model, 0) == SERIALISED
    assert send(model, SERIALISED - 1) is None
    assert send(model, SERIALISED) == 2 * SERIALISED


def test_default_queue_holds_a_thousand_frames():
    model = link(rate=GBIT)
    accepted = [send(model, 0) for _ in range(1100)]
    assert sum(due is not None for due in accepted) == 1001
    assert model.statistics().queue_high_water == 1000


def test_frames_refused_by_the_queue_use_neither_rate_nor_wire():
    model = link(rate=GBIT, queue=1)
    for _ in range(10):
        send(model, 0)
    assert send(model, 2 * SERIALISED) == 3 * SERIALISED


def test_lost_frame_has_used_the_serialiser():
    model = link(rate=GBIT, loss=1.0)
    assert send(model, 0) is None
    model.configure(LinkSettings(rate=GBIT), 0)
    assert send(model, 0) == 2 * SERIALISED


def test_drop_event_says_what_a_capture_needs():
    model = link(loss=1.0)
    for number in range(17):
        model.handle_frame(0, b"frame %d" % number, 100 + number)
    last = drops(model)[-1]
    assert last == FrameDropped(NAME, 17, "loss", b"frame 16", 116)
    assert last.comment == "dropped by loss on client->s1 (frame 17)"


def test_configure_leaves_frames_in_flight_alone_and_later_ones_do_not_overtake():
    model = link(latency=10 * MILLISECOND)
    model.handle_frame(0, b"old", SECOND)
    model.configure(LinkSettings(latency=MILLISECOND), SECOND)
    model.handle_frame(0, b"new", SECOND + MILLISECOND)
    model.handle_frame(0, b"newer", SECOND + 20 * MILLISECOND)
    assert [model.poll_transmit(SECOND + 20 * MILLISECOND) for _ in range(4)] == [
        Transmit(1, b"old", SECOND + 10 * MILLISECOND),
        Transmit(1, b"new", SECOND + 10 * MILLISECOND),
        Transmit(1, b"newer", SECOND + 21 * MILLISECOND),
        None,
    ]
    assert model.settings == LinkSettings(latency=MILLISECOND)


def test_new_rate_applies_behind_what_waits_already():
    model = link(rate=GBIT)
    assert [send(model, 0), send(model, 0)] == [SERIALISED, 2 * SERIALISED]
    model.configure(LinkSettings(rate=10 * GBIT), 0)
    assert send(model, 0) == 2 * SERIALISED + SERIALISED // 10
    model.configure(LinkSettings(), 0)
    assert send(model, 0) == 2 * SERIALISED + SERIALISED // 10


def test_statistics_add_up():
    model = link(seed=3, rate=GBIT, queue=5, loss=0.3, jitter=MICROSECOND, latency=MILLISECOND)
    for number in range(500):
        model.handle_frame(0, bytes(100 + number), number * 2 * MICROSECOND)
    given_out = list(iter(lambda: model.poll_transmit(SECOND), None))
    lost = drops(model)
    statistics = model.statistics()
    assert statistics.frames_in == 500
    assert statistics.bytes_in == sum(range(100, 600))
    assert statistics.frames_out == len(given_out)
    assert statistics.bytes_out == sum(len(transmit.frame) for transmit in given_out)
    assert statistics.frames_dropped == len(lost) == 500 - len(given_out)
    for reason in ("loss", "queue"):
        assert statistics.dropped_by(reason) == sum(drop.reason == reason for drop in lost) > 0
    assert statistics.dropped_by("partition") == 0


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"latency": -1}, "latency"),
        ({"jitter": -1}, "jitter"),
        ({"loss": 1.1}, "loss"),
        ({"loss": -0.1}, "loss"),
        ({"loss": float("nan")}, "loss"),
        ({"rate": 0}, "rate"),
        ({"queue": -1}, "queue"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, word):
    with pytest.raises(ValueError, match=word):
        LinkSettings(**settings)


def test_draw_cost_is_paid_only_by_what_is_set(monkeypatch):
    asked: list[str] = []

    def recording(seed: int, name: str):
        asked.append(name)
        return draws(seed, name)

    monkeypatch.setattr("fabric.link.impairments.draws", recording)
    link(latency=MILLISECOND, rate=GBIT)
    assert asked == []
    link(loss=0.1, jitter=5)
    assert asked == ["link/client->s1/loss", "link/client->s1/jitter"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"latency": 2 * MILLISECOND, "jitter": MILLISECOND, "loss": 0.2, "rate": 10 * 10**6, "queue": 3},
        {"loss": 1.0},
    ],
)
def test_link_keeps_the_engine_contract(settings):
    stimuli = [bytes([number % 256]) * (60 + 20 * number) for number in range(60)]
    changed = LinkSettings(latency=MICROSECOND, loss=0.5)
    commands = [lambda engine, now: engine.configure(changed, now)]
    check_engine(lambda: link(**settings), [*stimuli, *commands, *stimuli])


def test_a_partition_drops_whatever_enters_and_changes_no_later_fate():
    settings = LinkSettings(latency=MILLISECOND, loss=0.3)
    whole, cut = LinkModel(NAME, settings, 7), LinkModel(NAME, settings, 7)
    fates = []
    for model in (whole, cut):
        for number in range(300):
            model.cut = model is cut and 100 <= number < 200
            model.handle_frame(0, bytes(100), number * MILLISECOND)
        drops = []
        while (event := model.poll_event()) is not None:
            drops.append((event.number, event.reason))
        fates.append(drops)
    assert [reason for number, reason in fates[1] if 101 <= number <= 200] == ["partition"] * 100
    assert [drop for drop in fates[0] if not 101 <= drop[0] <= 200] == [drop for drop in fates[1] if drop[1] == "loss"]
    assert cut.statistics().dropped_by("partition") == 100
