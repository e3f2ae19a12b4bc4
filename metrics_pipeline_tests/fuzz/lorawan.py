"""Target: bodies of events, and who the hub says sent them."""

from __future__ import annotations

import json
import math

from metrics_pipeline_tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from metrics_pipeline.core.catalog import CATALOG
    from metrics_pipeline.core.line_protocol import render
    from metrics_pipeline.core.lorawan import AUTH_METHOD, DEVICE_ID, Reason, Rules, decode
    from metrics_pipeline.core.lorawan_devices import LorawanDevices
    from metrics_pipeline.core.lorawan_payload import Limits
    from metrics_pipeline.core.telemetry import RawEvent
    from metrics_pipeline.core.validation import validate

NOW_NS = 1_700_000_000_000_000_000
RULES = Rules(is_iot_hub=False, body_bytes=8000, limits=Limits(4, 30, 100, 20))
EUI = "A84041B3D1874EE2"


def check(data: bytes) -> None:
    """Nothing is raised; every point can be stored, and every refusal has a known reason."""
    body, _, sender = data.partition(b"\x00")
    properties = {AUTH_METHOD: sender.decode("latin-1")} if sender else {}
    event = RawEvent("0", len(data), "0", NOW_NS, body, {**properties, DEVICE_ID: "a"})
    result = decode(event, RULES, NOW_NS)
    for point in result.points:
        assert validate(point, CATALOG, NOW_NS) == point
        assert len(point.fields) <= RULES.limits.fields + 7
        assert all(not isinstance(v, float) or math.isfinite(v) for v in point.fields.values())
    assert set(result.refused) <= set(Reason)
    if result.points:
        render(result.points)
        devices = LorawanDevices()
        devices.take(result.points)
        render(devices.rows())
    assert repr(decode(event, RULES, NOW_NS)) == repr(result)


def seeds() -> list[bytes]:
    """Uplinks of every shape, and senders."""
    uplink = {
        "time": 1.5,
        "freq": 868.1,
        "datr": "SF7BW125",
        "rssi": -35,
        "lsnr": 5.1,
        "data": {"a": [1, "x", {"b": True}], "a_0": None},
        "port": 5,
        "fcnt": 7,
        "rawdata": "AQ==",
        "eui": EUI,
        "gatewayid": "g\\",
        "dupmsg": False,
        "other": {"": 1},
    }
    whole = json.dumps(uplink).encode()
    bodies = [
        whole,
        b"[%b,{},7,%b]" % (whole, whole),
        b'{"eui":"%b","data":NaN,"x":1e400}' % EUI.encode(),
        b'{"eui":"a8-40:41 b3.d1-87-4e-e2","data":"\\ud800","fcnt":1' + b"0" * 30 + b"}",
        b"\x1f\x8b",
        b"\xef\xbb\xbf[]",
    ]
    senders = [b"", b'{"scope":"device"}', b'{"scope":"module"}', b"{"]
    return [body + b"\x00" + sender for body in bodies for sender in senders]


if __name__ == "__main__":
    fuzz(check, seeds())
