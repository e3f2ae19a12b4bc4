"""The benchmark's output; no figure is asserted here."""

from __future__ import annotations

import json
import socket

import pytest

from metrics_pipeline.access.icmp_socket import IcmpSocket
from metrics_pipeline_tests.benchmarks import ping
from metrics_pipeline_tests.servers import require


def test_the_last_line_is_one_json_object_with_all_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    require("fping")
    try:
        IcmpSocket(socket.AF_INET).close()
    except PermissionError:
        pytest.skip("this process may not ping")
    ping.main(["--json", "--hosts", "20", "--rounds", "1"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["hosts"] == 20
    for name in ("sweep_s", "cpu_s", "poll_cpu_s", "peer_cpu_s", "peer_paced_cpu_s"):
        assert figures[name] > 0, name
