"""Changes of a link's settings: what is named is replaced, mistakes are told by name, and no JSON gets through."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.errors import UsageError
from fabric.ids import LinkName
from fabric.link import LinkModel, LinkSettings
from fabric.link.changes import EXAMPLES, merged
from fabric.units import MICROSECOND, MILLISECOND, SECOND
from tests.support.contract import check_engine

START = LinkSettings(latency=2 * MILLISECOND, loss=0.01, rate=10**9)


def test_what_is_not_named_stays():
    after = merged(START, {"latency": "5ms", "jitter": "10us", "loss": "10%"})
    assert after == LinkSettings(latency=5 * MILLISECOND, jitter=10 * MICROSECOND, loss=0.1, rate=10**9)
    assert merged(after, {"rate": "none", "queue": "7"}) == dataclasses.replace(after, rate=None, queue=7)
    assert merged(after, {"rate": None, "latency": 60 * SECOND, "loss": 1}) == dataclasses.replace(
        after, rate=None, latency=60 * SECOND, loss=1
    )
    assert merged(START, {}) == START


def test_plain_values_read_back_and_every_setting_has_an_example():
    assert merged(LinkSettings(), dataclasses.asdict(START)) == START
    assert list(EXAMPLES) == [field.name for field in dataclasses.fields(LinkSettings)]
    merged(START, {key: example.partition(" or ")[0] for key, example in EXAMPLES.items()})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"latncy": "5ms"}, "no link setting 'latncy'; did you mean 'latency'?"),
        ({"colour": "red"}, "no link setting 'colour'; there are latency, jitter, loss, rate, queue"),
        ({"partition": True}, "no link setting 'partition'"),
        ({"latency": "5"}, "latency: '5' has no unit; a duration takes one of ns"),
        ({"latency": "2h"}, "latency is 7200s; it must be 0 to 60s"),
        ({"jitter": 10**30}, "it must be 0 to 60s"),
        ({"latency": -1}, "latency is -1ns; it must be 0 to 60s"),
        ({"latency": None}, "latency: expected a value such as 2ms"),
        ({"jitter": True}, "jitter: expected a value such as 0.2ms"),
        ({"latency": 1.5}, "latency: expected a value such as 2ms"),
        ({"loss": "101%"}, "loss: '101%' is not between 0% and 100%"),
        ({"loss": float("nan")}, "loss is nan"),
        ({"rate": 0}, "rate is 0 bit/s; it must be above 0"),
        ({"rate": []}, "rate: expected a value such as 1Gbit or none"),
        ({"queue": "-1"}, "queue: '-1' is not a whole number"),
        ({"queue": "²"}, "queue: '²' is not a whole number"),
        ({"queue": -1}, "queue is -1 frames"),
        ({"latency": "9" * 5000 + "ms"}, "is too long"),
    ],
)
def test_mistakes_are_told_by_name(changes, expected):
    with pytest.raises(UsageError) as caught:
        merged(START, changes)
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 300


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60), lambda inner: st.lists(inner)
)


@given(st.dictionaries(st.sampled_from(list(EXAMPLES)) | st.text(max_size=12), _JSON, max_size=4))
def test_any_json_gives_settings_that_a_link_can_carry_or_a_usage_error(changes):
    try:
        after = merged(START, changes)
    except UsageError:
        return
    model = LinkModel(LinkName("a->b"), after, 1)
    for _ in range(3):
        model.handle_frame(0, bytes(9000), SECOND)
    while (transmit := model.poll_transmit(SECOND)) is not None:
        assert transmit.at < 1 << 62  # what an envelope can say


def test_a_partitioned_link_uses_neither_queue_nor_serialiser_and_what_entered_before_arrives():
    model = LinkModel(LinkName("client->s1"), LinkSettings(rate=8 * 10**6, queue=1), 1)  # 1000 bytes take 1 ms
    model.handle_frame(0, bytes(1000), 0)
    model.cut = True
    for _ in range(10):
        model.handle_frame(0, bytes(1000), 0)
    model.configure(LinkSettings(rate=8 * 10**6, queue=1, latency=1), 0)
    assert model.cut
    model.cut = False
    model.handle_frame(0, bytes(1000), 0)
    due = [transmit.at for transmit in iter(lambda: model.poll_transmit(0), None)]
    assert due == [MILLISECOND, 2 * MILLISECOND + 1]
    assert model.statistics().dropped == (("partition", 10),)
    drop = model.poll_event()
    assert drop is not None
    assert drop.comment == "dropped by partition on client->s1 (frame 2)"


def test_a_partition_keeps_the_engine_contract():
    stimuli = [bytes([number]) * 100 for number in range(20)]
    commands = [lambda engine, now: setattr(engine, "cut", True)]
    check_engine(lambda: LinkModel(LinkName("a->b"), LinkSettings(loss=0.2), 1), [*stimuli, *commands, *stimuli])
