"""Loss and jitter: their distributions, and that a frame's fate depends on its number alone."""

import itertools
import math

import pytest

from fabric.ids import LinkName
from fabric.link import LinkModel, LinkSettings
from fabric.link.impairments import Drop, Jitter, Loss
from fabric.rng import draws
from fabric.units import MICROSECOND, MILLISECOND, SECOND

SEED = 20_240
NAME = "client->s1"


def fates(settings: LinkSettings, *, name: str = NAME, seed: int = SEED, count: int = 2_000, spacing: int = 1_000_000):
    """For each frame: its due time relative to its entry, or the reason of its loss."""
    model = LinkModel(LinkName(name), settings, seed)
    result: list[int | str] = []
    for number in range(count):
        now = SECOND + number * spacing
        model.handle_frame(0, bytes(100), now)
        transmit = model.poll_transmit(now)
        if transmit is not None:
            result.append(transmit.at - now)
        else:
            drop = model.poll_event()
            assert drop is not None
            result.append(drop.reason)
    return result


def lost(outcome) -> list[int]:
    return [number for number, fate in enumerate(outcome) if fate == "loss"]


@pytest.mark.parametrize("ratio", [0.005, 0.1, 0.5])
def test_loss_ratio_lies_within_the_binomial_bound(ratio):
    count = 50_000
    count_lost = len(lost(fates(LinkSettings(loss=ratio), count=count)))
    bound = 3.2905 * math.sqrt(count * ratio * (1 - ratio))  # two-sided 99.9% of the normal approximation
    assert abs(count_lost - count * ratio) <= bound, f"seed {SEED}: {count_lost} of {count} at {ratio}"


def test_losses_are_independent_of_each_other():
    outcome = lost(fates(LinkSettings(loss=0.2), count=50_000))
    neighbours = sum(after - before == 1 for before, after in itertools.pairwise(outcome))
    count, p = 50_000, 0.2
    variance = count * (
        p**2 * (1 - p**2) + 2 * (p**3 - p**4)
    )  # of the number of adjacent pairs in a Bernoulli sequence
    assert abs(neighbours - count * p**2) <= 3.2905 * math.sqrt(variance), f"seed {SEED}"


def test_fate_of_a_frame_does_not_depend_on_other_settings():
    alone = lost(fates(LinkSettings(loss=0.1)))
    assert alone
    everything = LinkSettings(loss=0.1, latency=MILLISECOND, jitter=MILLISECOND, rate=10**9)
    assert lost(fates(everything)) == alone
    assert lost(fates(LinkSettings(loss=0.1), spacing=17)) == alone


def test_fate_does_not_depend_on_frames_that_the_queue_refused():
    alone = lost(fates(LinkSettings(loss=0.1)))
    crowded = fates(LinkSettings(loss=0.1, rate=10**6, queue=1), spacing=100 * MICROSECOND)
    assert crowded.count("queue") > 1_000
    assert lost(crowded) == [number for number in alone if crowded[number] != "queue"]


def test_fate_does_not_depend_on_when_the_loss_was_set():
    always = lost(fates(LinkSettings(loss=0.1)))
    model = LinkModel(LinkName(NAME), LinkSettings(), SEED)
    for number in range(2_000):
        if number == 1_000:
            model.configure(LinkSettings(loss=0.1), number)
        model.handle_frame(0, b"", number)
    late = [drop.number - 1 for drop in iter(model.poll_event, None)]
    assert late == [number for number in always if number >= 1_000]


def test_links_and_seeds_have_fates_of_their_own():
    outcomes = [
        tuple(lost(fates(LinkSettings(loss=0.1), name=name, seed=seed)))
        for name, seed in ((NAME, SEED), ("s1->client", SEED), (NAME, SEED + 1))
    ]
    assert len(dict.fromkeys(outcomes)) == 3


def test_more_loss_loses_the_same_frames_and_more():
    little, much = (lost(fates(LinkSettings(loss=ratio))) for ratio in (0.05, 0.2))
    assert len(little) < len(much)
    assert [number for number in little if number not in much] == []


def test_loss_of_zero_loses_nothing_and_of_one_everything():
    assert lost(fates(LinkSettings(loss=0))) == []
    assert len(lost(fates(LinkSettings(loss=1)))) == 2_000


def test_jitter_is_uniform_between_its_bounds():
    latency, jitter, count = 2 * MILLISECOND, 200 * MICROSECOND, 20_000
    outcome = fates(LinkSettings(latency=latency, jitter=jitter), count=count)  # frames 1 ms apart never meet
    assert latency - jitter <= min(outcome)
    assert max(outcome) <= latency + jitter
    buckets = [0] * 10
    for delay in outcome:
        buckets[min(9, (delay - latency + jitter) * 10 // (2 * jitter + 1))] += 1
    chi_square = sum((found - count / 10) ** 2 / (count / 10) for found in buckets)
    assert chi_square < 27.88, f"seed {SEED}: {buckets}"  # 99.9% for 9 degrees of freedom


def test_jitter_reaches_both_of_its_ends():
    small = Jitter(2, draws(SEED, "jitter"))
    assert sorted(dict.fromkeys(small.verdict(number, b"") for number in range(200))) == [-2, -1, 0, 1, 2]


def test_jitter_above_latency_never_makes_a_frame_arrive_before_it_left():
    outcome = fates(LinkSettings(latency=MICROSECOND, jitter=100 * MICROSECOND))
    assert min(outcome) == 0
    assert 0.4 < outcome.count(0) / len(outcome) < 0.6


def test_jitter_never_reorders():
    spacing = 10 * MICROSECOND
    outcome = fates(LinkSettings(latency=2 * MILLISECOND, jitter=MILLISECOND), spacing=spacing)
    due = [number * spacing + delay for number, delay in enumerate(outcome)]
    assert due == sorted(due)
    assert all(MILLISECOND <= delay <= 3 * MILLISECOND for delay in outcome)


def test_a_frame_whose_predecessor_is_slower_arrives_with_it_and_not_later():
    jitter = Jitter(MILLISECOND, draws(SEED, f"link/{NAME}/jitter"))
    own = [number * 10 + 2 * MILLISECOND + jitter.verdict(number + 1, b"") for number in range(500)]
    outcome = fates(LinkSettings(latency=2 * MILLISECOND, jitter=MILLISECOND), spacing=10, count=500)
    assert [number * 10 + delay for number, delay in enumerate(outcome)] == [
        max(own[: number + 1]) for number in range(500)
    ]


def test_verdicts_are_a_difference_or_a_drop():
    assert Loss(1.0, draws(SEED, "x")).verdict(1, b"") == Drop("loss")
    assert Loss(0.0, draws(SEED, "x")).verdict(1, b"") == 0
