"""LoRaWAN devices that are not there, and what a network server tells an IoT Hub of them. Pure.

All dice and times are passed in. Each device speaks one of the dialects that network servers have
had (CONTRACTS, section 3). Now and then a frame is lost, heard by two gateways or numbered from 0
again, and some messages are no uplinks at all: so counts of losses and dead letters are not empty.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

from metrics_pipeline.simulators.fleet import EUI_PREFIX, ID_PREFIX

LOST_CHANCE = 0.03
"""Of a frame that no gateway hears."""

TWICE_CHANCE = 0.05
"""Of a frame that two gateways hear."""

RESET_CHANCE = 0.002
JUNK_CHANCE = 0.01
FOREIGN_CHANCE = 0.01
"""Of a message that a module sent, which is no uplink."""

GATEWAYS = tuple(f"{EUI_PREFIX}0000{number:04X}" for number in range(4))
RATES = ("SF7BW125", "SF8BW125", "SF9BW125", "SF10BW125", "SF12BW125", "SF12BW500")
FREQUENCIES_MHZ = (868.1, 868.3, 868.5, 867.1, 867.3)
FRAME_COUNTERS = 2**16

_AUTH = '{"scope":"%s","type":"sas","issuer":"iothub"}'


@dataclass(frozen=True, slots=True)
class HubMessage:
    """A message as IoT Hub hands it on; `sender` chooses its partition."""

    sender: str
    body: bytes
    annotations: Mapping[str, Any]


@dataclass(slots=True)
class Node:
    """A LoRaWAN device: `eui` in 16 hexadecimal digits, the number of its last frame."""

    eui: str
    dialect: Dialect
    frame: int


Uplink = dict[str, Any]
Dialect = Callable[[Node, Uplink, Random], Any]
"""Makes what is sent of a frame: an uplink, or an array of them."""


def make_nodes(count: int, random: Random) -> list[Node]:
    """`count` devices, the dialects in turn."""
    return [
        Node(
            eui=f"{EUI_PREFIX}{0x10000000 + number:08X}",
            dialect=DIALECTS[number % len(DIALECTS)],
            # Far from where numbers end: a reset there looks like many frames that are lost.
            frame=random.randrange(FRAME_COUNTERS // 2),
        )
        for number in range(count)
    ]


def step(nodes: Sequence[Node], epoch_ms: int, random: Random) -> Iterator[HubMessage]:
    """What is sent when each device has one frame more, at `epoch_ms`."""
    for node in nodes:
        node.frame = 0 if random.random() < RESET_CHANCE else (node.frame + 1) % FRAME_COUNTERS
        if random.random() < JUNK_CHANCE:
            yield _message(node.eui, random.choice(JUNK))
        if random.random() < FOREIGN_CHANCE:
            yield _message(f"{ID_PREFIX}edge/network-server", b'{"uptime": 12}', scope="module")
        if random.random() >= LOST_CHANCE:
            yield from _frame(node, epoch_ms, random)


def _frame(node: Node, epoch_ms: int, random: Random) -> Iterator[HubMessage]:
    first, second = random.sample(GATEWAYS, 2)
    yield _message(node.eui, _body(node, _uplink(node, first, epoch_ms, random), random))
    if random.random() < TWICE_CHANCE:
        copy = {**_uplink(node, second, epoch_ms, random), "dupmsg": True}
        yield _message(node.eui, _body(node, copy, random))


def _uplink(node: Node, gateway: str, epoch_ms: int, random: Random) -> Uplink:
    """Every field of the contract, in the form that is most usual."""
    rssi = random.gauss(-95, 10)
    return {
        "time": epoch_ms // 1000,
        "tmms": epoch_ms,
        "freq": random.choice(FREQUENCIES_MHZ),
        "chan": random.randrange(8),
        "rfch": random.randrange(2),
        "modu": "LORA",
        "datr": random.choice(RATES),
        "rssi": round(rssi),
        "lsnr": round((rssi + 105) / 3, 1),
        "data": {"temperature": round(random.gauss(21, 3), 1), "battery": {"volts": 3.6}},
        "port": 1 + random.randrange(3),
        "fcnt": node.frame,
        "edgets": epoch_ms + random.randrange(200),
        "rawdata": base64.b64encode(random.randbytes(8)).decode(),
        "eui": node.eui,
        "gatewayid": gateway,
        "stationeui": gateway,
    }


def _body(node: Node, uplink: Uplink, random: Random) -> bytes:
    return json.dumps(node.dialect(node, uplink, random)).encode()


def _message(sender: str, body: bytes, scope: str = "device") -> HubMessage:
    return HubMessage(
        sender,
        body,
        {
            "iothub-connection-device-id": sender.partition("/")[0],
            "iothub-connection-auth-method": _AUTH % scope,
        },
    )


# --- dialects -------------------------------------------------------------------------------------


def _usual(_node: Node, uplink: Uplink, _random: Random) -> Any:
    return uplink


def _time_as_text(node: Node, uplink: Uplink, random: Random) -> Any:
    """An older packet forwarder's fields, an unknown one, and the payload as one number."""
    older = {"tmst": random.getrandbits(32), "stat": 1, "codr": "4/5", "size": 23, "tenant": "t-1"}
    text = datetime.fromtimestamp(uplink["time"], UTC).isoformat()
    spaced = ":".join(node.eui[at : at + 2] for at in range(0, 16, 2)).lower()
    return {**uplink, **older, "time": text, "eui": spaced, "data": uplink["data"]["temperature"]}


def _array_payload(node: Node, uplink: Uplink, _random: Random) -> Any:
    readings = [{"channel": 0, "value": uplink["data"]["temperature"]}, {"channel": 1, "value": 7}]
    dashed = "-".join(node.eui[at : at + 2] for at in range(0, 16, 2))
    return {**uplink, "eui": dashed, "data": readings}


def _text_payload(node: Node, uplink: Uplink, _random: Random) -> Any:
    """Sent by FSK, whose rate is a number."""
    fsk = {"modu": "FSK", "datr": 50000, "data": "open", "eui": f"0x{node.eui.lower()}"}
    return {**uplink, **fsk}


def _array_of_uplinks(_node: Node, uplink: Uplink, random: Random) -> Any:
    """The frame before is sent again: what came twice is a copy."""
    again = {**uplink, "fcnt": max(0, uplink["fcnt"] - 1), "rssi": random.randrange(-120, -60)}
    return [again, uplink]


def _scarcely_anything(node: Node, uplink: Uplink, _random: Random) -> Any:
    return {"eui": node.eui, "fcnt": uplink["fcnt"], "data": None}


DIALECTS: Sequence[Dialect] = (
    _usual,
    _time_as_text,
    _array_payload,
    _text_payload,
    _array_of_uplinks,
    _scarcely_anything,
)

JUNK = (
    b"\xff\xfe\x00 not UTF-8",
    b"{not JSON",
    b'"a text"',
    b"[]",
    b'{"rssi": -80}',
    b'{"eui": "too short"}',
    b'{"eui": "FEEDFACE10000000", "rssi": NaN}',
    b'{"eui": "FEEDFACE10000000", "freq": 1e400}',
    gzip.compress(b'{"eui": "FEEDFACE10000000"}', mtime=0),
)
