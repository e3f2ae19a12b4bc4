"""Follows events wherever the settings send them: each once, in the order in which they came."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.events import Event, NotAnEvent
from metrics_pipeline.events.file_following import FileFollower
from metrics_pipeline.events.settings import (
    JsonLinesSettings,
    RedisStreamSettings,
    TransportSettings,
)
from metrics_pipeline.events.transport import TransportUnavailable

IDS_KEPT = 20_000
"""So many events are remembered, to show one that was sent again once."""


class Follower(Protocol):
    """Where events can be read."""

    @property
    def name(self) -> str:
        """The place."""
        ...

    @property
    def is_caught_up(self) -> bool:
        """Whether all that was there at first was read."""
        ...

    def read(self) -> Sequence[Event | NotAnEvent]:
        """What the next lines hold, or nothing for the moment; raises TransportUnavailable."""
        ...

    def pause(self) -> None:
        """Wait a moment for more."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


def open_follower(settings: TransportSettings | None, since: float) -> Follower:
    """For events from `since` on, in seconds since the epoch; ConfigurationError if there is none.

    Nothing is opened yet.
    """
    match settings:
        case JsonLinesSettings():
            return FileFollower(settings, since)
        case RedisStreamSettings():
            # Whose import takes a tenth of a second.
            from metrics_pipeline.events.stream_following import StreamFollower  # noqa: PLC0415

            return StreamFollower(settings, since)
        case _:
            problem = "events go nowhere" if settings is None else "events go to the log"
            fix = "Choose kind json_lines or redis_stream, which can be followed."
            raise ConfigurationError("events.transport", problem, fix)


def follow(
    follower: Follower, types: Sequence[str], tell: Callable[[str], None], *, once: bool = False
) -> Iterator[Event]:
    """Events of `types` (patterns; none is all) as they come; `once`: only those there are.

    `tell` hears, once per change of state, that the place is away, and of each line that is no
    event. With `once` a place that is away raises TransportUnavailable.
    """
    seen: dict[str, None] = {}
    is_away = False
    while not (once and follower.is_caught_up):
        try:
            found = follower.read()
        except TransportUnavailable as error:
            if once:
                raise
            if not is_away:
                tell(f"waiting: {error}")
            is_away = True
            follower.pause()
            continue
        if is_away:
            tell(f"{follower.name} is there again")
            is_away = False
        yield from (e for e in _new(found, seen, tell) if _is_wanted(e, types))
        if not found:
            follower.pause()


def _new(
    found: Sequence[Event | NotAnEvent], seen: dict[str, None], tell: Callable[[str], None]
) -> Iterator[Event]:
    for event in found:
        if isinstance(event, NotAnEvent):
            tell(f"a line was skipped: {event}")
            continue
        if event.id in seen:
            continue
        seen[event.id] = None
        if len(seen) > IDS_KEPT:
            del seen[next(iter(seen))]
        yield event


def _is_wanted(event: Event, types: Sequence[str]) -> bool:
    return not types or any(fnmatchcase(event.type, pattern) for pattern in types)
