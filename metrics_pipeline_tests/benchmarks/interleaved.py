"""Compares ways of doing the same work fairly: in turns, by CPU time, by the median of rounds.

On a shared machine the noise of one minute would otherwise fall on one of them alone.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def measure_cpu_seconds(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    cpu_seconds: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """The median CPU time of this process, in seconds, of one call of each of `contenders`.

    Every contender is called once before anything is measured, then once in each round, and each
    round starts with another one. The garbage collector runs between the calls, never during one.
    """
    names = list(contenders)
    for call in contenders.values():
        call()
    spent: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in _rotated(names, turn):
            spent[name].append(_one_call(contenders[name], cpu_seconds))
    return {name: statistics.median(times) for name, times in spent.items()}


def _rotated(names: Sequence[str], turn: int) -> Sequence[str]:
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def _one_call(call: Callable[[], object], cpu_seconds: Callable[[], float]) -> float:
    gc.collect()
    gc.disable()
    try:
        started = cpu_seconds()
        call()
        return cpu_seconds() - started
    finally:
        gc.enable()
