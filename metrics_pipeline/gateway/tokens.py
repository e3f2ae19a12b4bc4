"""Who may send or read what: tokens of the settings, and of a file with one for each robot.

Kept are digests, and compared are these, in constant time. `reload` looks at all of it again, so
that tokens are given and withdrawn without a restart; one that cannot be read is withdrawn.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path

from metrics_pipeline.access.bearer_token import checked_digest
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.robots import ROBOT_ID_RULE, is_robot_id
from metrics_pipeline.settings import GatewaySettings, RobotTokenSettings

LOG = logging.getLogger(__name__)
SEND, READ = "send", "read"
MAX_NAMED = 5
SECTION = "gateway.tokens"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token is good for. `expires_at` is in seconds since the epoch, None for ever."""

    name: str
    digest: bytes = field(repr=False)
    robots: tuple[str, ...]
    rights: frozenset[str]
    expires_at: float | None

    def covers(self, robot_id: str, right: str, now: float) -> bool:
        """Whether it is for that robot and right, and still good at `now`."""
        return (
            right in self.rights
            and (self.expires_at is None or now < self.expires_at)
            and any(_matches(pattern, robot_id) for pattern in self.robots)
        )


def _matches(pattern: str, robot_id: str) -> bool:
    if pattern.endswith("*"):
        return robot_id.startswith(pattern[:-1])
    return pattern == robot_id


class Tokens:
    """The tokens there are; nothing is read before `reload`."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._shared: tuple[Grant, ...] = ()
        self._of_robots: Mapping[str, tuple[Grant, ...]] = {}
        self._told = ""

    def allows(self, digest: bytes, robot_id: str, right: str, now: float) -> bool:
        """Whether who shows the token with this digest has the right, for that robot, at `now`."""
        candidates = (*self._shared, *self._of_robots.get(robot_id, ()))
        # All of them are compared, so that the time tells nothing.
        found = [each for each in candidates if hmac.compare_digest(each.digest, digest)]
        return any(each.covers(robot_id, right, now) for each in found)

    def in_words(self, now: float) -> str:
        """How many there are, and which have expired; nothing of what they are."""
        of_robots = tuple(chain.from_iterable(self._of_robots.values()))
        every = (*self._shared, *of_robots)
        expired = [each.name for each in every if each.expires_at and each.expires_at <= now]
        gone = f"; expired: {', '.join(expired[:MAX_NAMED])}" if expired else ""
        return f"{len(self._shared)} shared, {len(of_robots)} of single robots{gone}"

    def load(self) -> None:
        """Read all tokens; ConfigurationError if one is not there, or too short."""
        problems = self._read()
        if problems:
            raise problems[0]

    def reload(self) -> None:
        """Read all tokens again, each by itself: what is wrong with one is told once, in the log.

        A token that cannot be read is not good any more, as it may have been withdrawn. Only where
        the file of robots cannot be read at all, its tokens stay as they were.
        """
        problems = self._read()
        some = "; ".join(str(each) for each in problems[:MAX_NAMED])
        told = f"{len(problems)}: {some}" if problems else ""
        if told and told != self._told:
            LOG.warning("tokens that let nobody in (but those a file had before): %s", told)
        self._told = told

    def _read(self) -> list[ConfigurationError]:
        """Have what is good; what is wrong with the rest."""
        problems: list[ConfigurationError] = []
        shared = (partial(_grant, name, each) for name, each in self._settings.tokens.items())
        self._shared = tuple(_good(shared, problems))
        file = self._settings.robot_tokens_file
        try:
            lines = [] if file is None else _lines(file)
        except ConfigurationError as error:
            problems.append(error)
        else:
            self._of_robots = _by_robot(_good(lines, problems))
        return problems


def _good(
    attempts: Iterable[Callable[[], Grant]], problems: list[ConfigurationError]
) -> Iterator[Grant]:
    """What the attempts give; their errors go into `problems`."""
    for attempt in attempts:
        try:
            yield attempt()
        except ConfigurationError as error:
            problems.append(error)


def _by_robot(grants: Iterable[Grant]) -> Mapping[str, tuple[Grant, ...]]:
    """A robot may have several: the next token is given before the old one is withdrawn."""
    found: dict[str, tuple[Grant, ...]] = {}
    for grant in grants:
        found[grant.name] = (*found.get(grant.name, ()), grant)
    return found


def _grant(name: str, settings: RobotTokenSettings) -> Grant:
    expires = settings.expires_at
    return Grant(
        name,
        checked_digest(settings.token.read(), f"{SECTION}.{name}"),
        settings.robots,
        frozenset(settings.rights),
        None if expires is None else expires.timestamp(),
    )


def _lines(path: Path) -> list[Callable[[], Grant]]:
    """What is to be tried for each line with a token; ConfigurationError about the file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            str(path),
            f"cannot be read ({error.__class__.__name__})",
            "Create it, or make it readable: a line `ROBOT TOKEN` for each robot.",
        ) from error
    return [
        partial(_parse, words, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if (words := line.split()) and not words[0].startswith("#")
    ]


def _parse(words: list[str], where: str) -> Grant:
    robot_id, token, *expiry = words if len(words) > 1 else (*words, "")
    if not is_robot_id(robot_id) or len(expiry) > 1:
        rule = f"a robot's id is {ROBOT_ID_RULE}"
        raise ConfigurationError(where, f"expected `ROBOT TOKEN [EXPIRY]`; {rule}", "Mend it.")
    expires_at = _expiry(expiry[0], where) if expiry else None
    digest = checked_digest(token, where)
    return Grant(robot_id, digest, (robot_id,), frozenset({SEND, READ}), expires_at)


def _expiry(text: str, where: str) -> float:
    try:
        expires = datetime.fromisoformat(text)
    except ValueError as error:
        fix = "Write it as 2027-01-01T00:00:00Z."
        raise ConfigurationError(where, "the time of expiry is none", fix) from error
    return (expires if expires.tzinfo else expires.replace(tzinfo=UTC)).timestamp()
