"""One event hub: its partitions, its consumer groups, and who may read."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol
from urllib.parse import urlsplit

from metrics_pipeline.simulators.event_hub.amqp_messages import Message
from metrics_pipeline.simulators.event_hub.partition_log import PartitionLog, Retention
from metrics_pipeline.simulators.event_hub.refusals import (
    NOT_FOUND,
    OUT_OF_RANGE,
    RESOURCE_LIMIT,
    STOLEN,
    Refusal,
)

DEFAULT_GROUP: Final = "$default"
MAX_RECEIVERS: Final = 5
"""Of one partition and consumer group, without an epoch (quotas of Event Hubs, standard tier)."""

_ADDRESS: Final = re.compile(
    r"/?(?P<hub>[^/]+)(?:/ConsumerGroups/(?P<group>[^/]+))?(?:/Partitions/(?P<partition>[^/]+))?/?",
    re.IGNORECASE,
)


class Receiver(Protocol):
    """Who reads a partition. With an epoch it wants to be the only one."""

    @property
    def epoch(self) -> int | None:
        """The owner level; None for a receiver that shares."""

    def detach(self, refusal: Refusal) -> None:
        """End it, because of `refusal`."""


@dataclass(frozen=True, slots=True)
class Address:
    """What a link is attached to, as far as it says."""

    hub: str
    group: str | None
    partition: str | None


def parse_address(text: str) -> Address | None:
    """The address in `text`, a path or a URL; None where it is none."""
    match = _ADDRESS.fullmatch(urlsplit(text).path if "://" in text else text)
    return match and Address(match["hub"], match["group"], match["partition"])


class Hub:
    """Not thread-safe: one event loop owns it."""

    def __init__(
        self,
        name: str,
        partition_count: int,
        consumer_groups: Iterable[str],
        retention: Retention,
        epoch_ms: Callable[[], int],
    ) -> None:
        self.name = name
        self.created_ms = epoch_ms()
        self.partitions: dict[str, PartitionLog] = {}
        self._groups = {group.lower() for group in (DEFAULT_GROUP, *consumer_groups)}
        self._receivers: dict[tuple[str, str], list[Receiver]] = defaultdict(list)
        self._retention = retention
        self._epoch_ms = epoch_ms
        self._turn = count()
        for _ in range(partition_count):
            self.add_partition()

    def add_partition(self) -> str:
        """One more, empty; gives its id."""
        partition = str(len(self.partitions))
        self.partitions[partition] = PartitionLog(self._retention, self._epoch_ms)
        return partition

    def check_name(self, name: str) -> None:
        """Raise Refusal unless `name` is this hub's."""
        if name.lower() != self.name.lower():
            raise Refusal(NOT_FOUND, f"The messaging entity '{name}' could not be found.")

    def check_group(self, group: str) -> None:
        """Raise Refusal unless there is the consumer group."""
        if group.lower() not in self._groups:
            entity = f"{self.name}/ConsumerGroups/{group}"
            raise Refusal(NOT_FOUND, f"The messaging entity '{entity}' could not be found.")

    def log(self, partition: str) -> PartitionLog:
        """The events of `partition`. Raises Refusal where there is none of that id."""
        try:
            return self.partitions[partition]
        except KeyError:
            raise Refusal(
                OUT_OF_RANGE,
                "The specified partition is invalid for an EventHub partition sender or receiver. "
                f"It should be between 0 and {len(self.partitions) - 1}.",
            ) from None

    def partition_for(self, partition_key: str | None) -> str:
        """The same partition for the same key; for none, each in turn."""
        if partition_key is None:
            return str(next(self._turn) % len(self.partitions))
        digest = hashlib.sha256(partition_key.encode()).digest()
        return str(int.from_bytes(digest[:8], "big") % len(self.partitions))

    def append(
        self, partition: str, messages: Sequence[Message], partition_key: str | None
    ) -> None:
        """Keep the messages of one send, and tell the receivers."""
        log = self.log(partition)
        for message in messages:
            log.append(message, message.partition_key or partition_key)
        log.wake_readers()

    def admit(self, group: str, partition: str, receiver: Receiver) -> None:
        """Let `receiver` read, and end those it takes the partition from.

        Raises Refusal where one with a higher epoch reads, or there are too many.
        """
        present = self._receivers[group.lower(), partition]
        owner = max((each.epoch for each in present if each.epoch is not None), default=None)
        if receiver.epoch is None:
            _check_shared(present, owner)
        else:
            _check_owner(owner, receiver.epoch)
            for each in tuple(present):
                each.detach(_stolen(receiver.epoch, each.epoch))
        present.append(receiver)

    def receivers(self) -> list[tuple[str, str, int | None]]:
        """Of every receiver its consumer group, in lower case, its partition and its epoch."""
        return [
            (group, partition, each.epoch)
            for (group, partition), present in self._receivers.items()
            for each in present
        ]

    def leave(self, group: str, partition: str, receiver: Receiver) -> None:
        """`receiver` does not read any more. Twice is once."""
        present = self._receivers[group.lower(), partition]
        if receiver in present:
            present.remove(receiver)


def _check_shared(present: Sequence[Receiver], owner: int | None) -> None:
    if owner is not None:
        raise Refusal(
            STOLEN,
            f"At least one receiver for the endpoint is created with epoch of '{owner}', and so "
            "non-epoch receiver is not allowed. Either reconnect with a higher epoch, or make sure "
            "all epoch receivers are closed or disconnected.",
        )
    if len(present) >= MAX_RECEIVERS:
        raise Refusal(
            RESOURCE_LIMIT,
            "Exceeded the maximum number of allowed receivers per partition in a consumer group "
            f"which is {MAX_RECEIVERS}.",
        )


def _check_owner(owner: int | None, epoch: int) -> None:
    if owner is not None and owner > epoch:
        raise Refusal(
            STOLEN,
            f"Receiver 'nil' with a higher epoch '{owner}' already exists. Receiver 'nil' with "
            f"epoch {epoch} cannot be created. Make sure you are creating receiver with increasing "
            "epoch value to ensure connectivity, or ensure all old epoch receivers are closed or "
            "disconnected.",
        )


def _stolen(epoch: int, loser: int | None) -> Refusal:
    return Refusal(
        STOLEN,
        f"New receiver 'nil' with higher epoch of '{epoch}' is created hence current receiver "
        f"'nil' with epoch '{loser}' is getting disconnected. If you are recreating the receiver, "
        "make sure a higher epoch is used.",
    )
