"""A bucket that fills with time, with a clock of the test's own."""

from __future__ import annotations

from metrics_pipeline.gateway.limits import Rate


def test_a_burst_costs_no_waiting_and_then_each_waits_its_turn() -> None:
    now = [0.0]
    rate = Rate(10, 3, lambda: now[0])
    assert [rate.take() for _ in range(5)] == [0, 0, 0, 0.1, 0.2]
    now[0] = 0.2
    assert rate.take() == 0.1


def test_what_is_not_used_is_kept_up_to_the_burst() -> None:
    now = [0.0]
    rate = Rate(10, 2, lambda: now[0])
    now[0] = 1000.0
    assert [rate.take_if_there() for _ in range(3)] == [True, True, False]
    now[0] += 0.1
    assert [rate.take_if_there() for _ in range(2)] == [True, False]
