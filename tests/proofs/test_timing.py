"""Seconds of one core, and the words that compare a check with brute force."""

import pytest

from xtalk.proofs.timing import Timing, against_brute_force, least_seconds


def test_the_least_of_several_runs_counts():
    times = iter([0.0, 3.0, 3.0, 4.0, 4.0, 9.0])
    assert least_seconds(lambda: None, budget=5.0, clock=lambda: next(times)) == Timing(1.0, False)


@pytest.mark.parametrize(
    ("macs", "brute_macs", "check", "brute", "told"),
    [
        (100, 5700, 0.12, 0.016, "57 times shorter in multiply-adds but 7.5 times slower"),
        (10, 16_000, 2.0, 500.0, "1,600 times shorter in multiply-adds and 250 times faster"),
        (200, 100, 2.0, 1.0, "2 times longer in multiply-adds and 2 times slower"),
        (200, 100, 1.0, 2.0, "2 times longer in multiply-adds but 2 times faster"),
    ],
)
def test_words_tell_shorter_from_faster(macs, brute_macs, check, brute, told):
    measured = against_brute_force(macs, brute_macs, check, Timing(brute, False))
    assert measured == f"{told} in seconds of one core ({check:.2g} against {brute:.2g})"
    estimated = against_brute_force(macs, brute_macs, check, Timing(brute, True))
    assert estimated == f"{told} in seconds of one core ({check:.2g} against an estimated {brute:.2g})"
