"""WinRM over real sockets, TLS, NTLM and encryption, against hosts that err in every way."""

from __future__ import annotations

import asyncio
import base64
import gzip
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import spnego
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from metrics_pipeline.access import host_addresses
from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DETAILS,
    DISK_USAGE,
    DISKS,
    HOST_METRICS,
    INTERFACES,
    MEMORY_UTILIZATION,
    NETWORK_RECEIVE,
    PING_STATUS,
    TEMPERATURE,
    UPTIME,
    DeviceReading,
    Miss,
)
from metrics_pipeline.simulators.loopback_ports import silence
from metrics_pipeline.simulators.loopback_server import Answer, NoAnswer
from metrics_pipeline.simulators.windows_host import Fault, Machine, Reply, SoapFault, WindowsHost
from metrics_pipeline.sources import winrm_session
from metrics_pipeline.sources.winrm import WinRm
from metrics_pipeline.sources.winrm_settings import WindowsLogin, WinRmSettings
from metrics_pipeline_tests.descriptors import open_descriptors
from metrics_pipeline_tests.kerberos import kerberos_realm
from metrics_pipeline_tests.servers import require_module, self_signed
from metrics_pipeline_tests.windows_hosts import (
    IMPATIENT,
    PASSWORD,
    QUICK,
    USER,
    Site,
    device,
    site,
)

A_YEAR_SECONDS = 31_557_600.0
SOAP = {"Content-Type": "application/soap+xml;charset=UTF-8"}
QUOTA = SoapFault(2150859174, "The maximum number of operations is exceeded.", "w:QuotaLimit")
ADDRESSING = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
ENUMERATION = "http://schemas.xmlsoap.org/ws/2004/09/enumeration"
ENVELOPE = (
    '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Header>'
    f'<a:RelatesTo xmlns:a="{ADDRESSING}">%MESSAGE_ID%</a:RelatesTo></s:Header>'
    "<s:Body>{}</s:Body></s:Envelope>"
)
BOMB = (
    '<!DOCTYPE s [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope">&b;</s:Envelope>'
)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        yield made


@pytest.fixture
def host() -> Iterator[WindowsHost]:
    with WindowsHost() as started:
        yield started


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"))


def secure(here: Site, certificate: Path, **changes: object) -> WindowsLogin:
    given = {"transport": "https", "ca_file": certificate, "server_name": "address"}
    return here.login(**(given | changes))


@contextmanager
def peer(behave: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    """Something that is no WinRM service: takes one connection and does `behave` with it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()
        thread.join()


def assert_lost(reading: DeviceReading, reason: Miss, words: str, *, is_up: bool) -> None:
    assert reading.values == {}
    assert reading.misses == dict.fromkeys(HOST_METRICS, reason)
    assert (reading.reason, reading.is_up) == (reason, is_up)
    assert words in reading.detail
    assert PASSWORD not in reading.detail


@pytest.mark.parametrize("auth", ["negotiate", "ntlm"])
def test_all_metrics_are_read_over_http_with_every_message_encrypted(
    here: Site, host: WindowsHost, auth: str
) -> None:
    reading = here.poll(host, here.login(auth=auth))
    assert set(reading.values) == set(HOST_METRICS)
    assert (reading.is_up, reading.misses, reading.reason, reading.detail) == (True, {}, None, "")
    assert reading.values[DISK_USAGE] == 75.0
    assert reading.values[TEMPERATURE] == pytest.approx(45.05)


@pytest.mark.parametrize("auth", ["negotiate", "ntlm"])
def test_all_metrics_are_read_over_https_with_the_channel_bound(
    here: Site, certificate: Path, auth: str
) -> None:
    with WindowsHost(certificate=certificate) as host:
        reading = here.poll(host, secure(here, certificate, auth=auth))
    assert set(reading.values) == set(HOST_METRICS)


def test_a_poll_is_one_connection_one_log_in_and_one_query_a_class(
    here: Site, host: WindowsHost
) -> None:
    here.poll(host)
    assert (host.connections, host.logins) == (1, 1)
    assert [request for request in host.requests if request != "Pull"] == [
        "Enumerate Win32_PerfFormattedData_PerfOS_Processor",
        "Enumerate Win32_OperatingSystem",
        "Enumerate Win32_LogicalDisk",
        "Enumerate Win32_PerfRawData_Tcpip_NetworkInterface",
        "Enumerate MSAcpi_ThermalZoneTemperature",
    ]


def test_only_the_classes_of_the_metrics_are_asked(here: Site, host: WindowsHost) -> None:
    reading = here.poll(host, metrics=[MEMORY_UTILIZATION, PING_STATUS])
    assert list(reading.values) == [MEMORY_UTILIZATION]
    assert reading.misses == {PING_STATUS: Miss.UNSUPPORTED}
    assert list(host.requests) == ["Enumerate Win32_OperatingSystem"]


def test_what_is_no_business_of_winrm_is_unsupported_whatever_happens(here: Site) -> None:
    reading = here.poll(("127.0.0.1", 1), metrics=[CPU_UTILIZATION, PING_STATUS])
    assert reading.misses == {CPU_UTILIZATION: Miss.REFUSED, PING_STATUS: Miss.UNSUPPORTED}


def test_without_metrics_a_host_that_takes_the_connection_is_up(
    here: Site, host: WindowsHost
) -> None:
    reading = here.poll(host, metrics=())
    assert (reading.is_up, reading.reason, host.logins) == (True, None, 0)


def test_rows_of_many_pulls_are_put_together(here: Site, host: WindowsHost) -> None:
    host.machine.interfaces = tuple(f"NIC {number}" for number in range(25))
    host.page_rows = 3
    reading = here.poll(host, metrics=[NETWORK_RECEIVE])
    assert reading.values[NETWORK_RECEIVE] >= 25 * 5_000_000_000
    assert host.requests.count("Pull") == 8


def test_twenty_thousand_interfaces_are_read(here: Site, host: WindowsHost) -> None:
    host.machine.interfaces = tuple(f"NIC {number}" for number in range(20_000))
    host.page_rows = 1000
    reading = here.poll(host, metrics=[NETWORK_RECEIVE, INTERFACES])
    assert reading.misses == {}
    assert len(reading.details[INTERFACES]) == 20_000


def test_interfaces_and_disks_are_named_and_cost_no_query(here: Site, host: WindowsHost) -> None:
    reading = here.poll(host, metrics=[*HOST_METRICS, *DETAILS])
    assert (reading.misses, reading.reason, reading.detail) == ({}, None, "")
    assert reading.details[DISKS] == {"C:": {DISK_USAGE: 75.0}}
    [(name, counters)] = reading.details[INTERFACES].items()
    assert name == "Intel[R] Ethernet Connection X722"
    assert counters == {metric: reading.values[metric] for metric in counters}
    assert sum(asked.startswith("Enumerate") for asked in host.requests) == 5


def test_a_class_that_is_refused_costs_its_table_with_its_metrics(
    here: Site, host: WindowsHost
) -> None:
    host.denied = {"Win32_LogicalDisk"}
    reading = here.poll(host, metrics=[DISK_USAGE, *DETAILS])
    assert reading.misses == {DISK_USAGE: Miss.AUTH, DISKS: Miss.AUTH}
    assert reading.details.keys() == {INTERFACES}
    assert reading.reason is None


def test_a_host_that_is_gone_has_its_reason_for_tables_too(here: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    reading = here.poll(address, metrics=[DISK_USAGE, *DETAILS])
    assert reading.misses == dict.fromkeys([DISK_USAGE, *DETAILS], Miss.REFUSED)


def test_pulls_without_an_end_are_ended(here: Site, host: WindowsHost) -> None:
    host.is_endless = True
    reading = here.poll(host)
    assert_lost(reading, Miss.PARSE, "no end after 100 pulls", is_up=True)
    assert len(host.requests) == 1 + winrm_session.MAX_PULLS


def test_a_class_the_host_does_not_have_costs_only_its_metrics(
    here: Site, host: WindowsHost
) -> None:
    host.missing = {"MSAcpi_ThermalZoneTemperature"}
    reading = here.poll(host)
    assert set(reading.values) == set(HOST_METRICS) - {TEMPERATURE}
    assert reading.misses == {TEMPERATURE: Miss.UNSUPPORTED}
    assert "The specified class does not exist in the given namespace. (code" in reading.detail
    assert reading.reason is None


def test_a_class_the_user_may_not_see_costs_only_its_metrics(here: Site, host: WindowsHost) -> None:
    host.denied = {"MSAcpi_ThermalZoneTemperature"}
    reading = here.poll(host)
    assert reading.misses == {TEMPERATURE: Miss.AUTH}
    assert "MSAcpi_ThermalZoneTemperature: The WMI service returned" in reading.detail


def test_a_user_who_may_see_nothing_reads_nothing_of_a_host_that_is_up(
    here: Site, host: WindowsHost
) -> None:
    reading = here.poll(host, metrics=[CPU_UTILIZATION])
    host.denied = {"Win32_PerfFormattedData_PerfOS_Processor"}
    reading = here.poll(host, metrics=[CPU_UTILIZATION])
    assert (reading.is_up, reading.reason) == (True, Miss.AUTH)


def test_a_class_without_rows_is_a_miss_with_its_reason(here: Site, host: WindowsHost) -> None:
    host.machine.temperatures = ()
    reading = here.poll(host)
    assert reading.misses == {TEMPERATURE: Miss.UNSUPPORTED}
    assert reading.detail == "temperature_celsius: not there in MSAcpi_ThermalZoneTemperature"


def test_a_quota_is_a_refusal_in_windows_own_words(here: Site, host: WindowsHost) -> None:
    host.faults.append(QUOTA)
    reading = here.poll(host)
    assert reading.misses == {CPU_UTILIZATION: Miss.REFUSED}
    assert "maximum number of operations is exceeded. (code 0x803381a6)" in reading.detail


def test_a_fault_that_calls_itself_a_success_is_a_fault(here: Site, host: WindowsHost) -> None:
    inner = "<s:Fault><s:Reason><s:Text>No.</s:Text></s:Reason></s:Fault>"
    host.faults.append(Reply(ENVELOPE.format(inner).encode()))
    reading = here.poll(host)
    assert reading.misses == {CPU_UTILIZATION: Miss.REFUSED}
    assert "No." in reading.detail


@pytest.mark.parametrize(
    "changes", [{"user": r"EXAMPLE\nobody"}, {"password": {"env": "ANOTHER_PASSWORD"}}]
)
@pytest.mark.parametrize("is_https", [True, False])
def test_a_wrong_user_or_password_is_an_auth_miss(
    here: Site,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    is_https: bool,
) -> None:
    monkeypatch.setenv("ANOTHER_PASSWORD", "guessed-wrong")
    login = secure(here, certificate, **changes) if is_https else here.login(**changes)
    with WindowsHost(certificate=certificate if is_https else None) as host:
        reading = here.poll(host, login)
    assert_lost(reading, Miss.AUTH, "HTTP 401", is_up=True)
    assert "guessed-wrong" not in str(reading)


def test_a_certificate_of_somebody_else_is_not_trusted(
    here: Site, certificate: Path, tmp_path: Path
) -> None:
    with WindowsHost(certificate=certificate) as host:
        reading = here.poll(host, secure(here, certificate, ca_file=self_signed(tmp_path)))
    assert_lost(reading, Miss.AUTH, "its certificate is not trusted", is_up=True)
    assert host.logins == 0


def test_a_certificate_of_another_name_is_not_trusted(here: Site, certificate: Path) -> None:
    with WindowsHost(certificate=certificate) as host:
        reading = here.poll(host, secure(here, certificate, server_name="hostname"))
    assert_lost(reading, Miss.AUTH, "win.example.org", is_up=True)


def test_plain_http_on_the_tls_port_is_not_understood(
    here: Site, certificate: Path, host: WindowsHost
) -> None:
    assert_lost(here.poll(host, secure(here, certificate)), Miss.PARSE, "TLS failed", is_up=True)


def test_tls_on_the_plain_port_is_a_refusal_without_a_word_of_the_log_in(
    here: Site, certificate: Path
) -> None:
    with WindowsHost(certificate=certificate) as host:
        reading = here.poll(host)
    assert_lost(reading, Miss.REFUSED, "it ended the connection", is_up=False)


def test_a_port_nobody_listens_on_is_refused(here: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()
    assert_lost(here.poll(nobody), Miss.REFUSED, "Connection refused", is_up=False)


def test_a_host_that_takes_no_connection_is_a_timeout(here: Site) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # Its queue is full, so that what comes next is left without an answer.
        with socket.create_connection(listener.getsockname()):
            reading = here.poll(listener.getsockname(), settings=IMPATIENT)
    assert_lost(reading, Miss.TIMEOUT, "within 0.3 s", is_up=False)


def test_a_host_that_takes_the_connection_and_is_silent_is_a_timeout(here: Site) -> None:
    with peer(drain) as silent:
        reading = here.poll(silent, settings=IMPATIENT)
    assert_lost(reading, Miss.TIMEOUT, "no answer in time", is_up=False)


def test_silence_in_the_tls_handshake_is_a_timeout(here: Site, certificate: Path) -> None:
    with peer(drain) as silent:
        reading = here.poll(silent, secure(here, certificate), settings=IMPATIENT)
    assert_lost(reading, Miss.TIMEOUT, "no answer in time", is_up=False)


def drain(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def test_what_was_read_before_a_host_fell_silent_is_kept(here: Site, host: WindowsHost) -> None:
    host.faults.extend([None, NoAnswer()])
    reading = here.poll(host, settings=IMPATIENT)
    assert set(reading.values) == {CPU_UTILIZATION}
    assert set(reading.misses.values()) == {Miss.TIMEOUT}
    assert (reading.is_up, reading.reason) == (True, None)


def test_a_name_without_an_address_is_a_resolve_miss(here: Site) -> None:
    reading = here.poll(("no.such.host.invalid", 5985))
    assert_lost(reading, Miss.RESOLVE, "'no.such.host.invalid' has no address", is_up=False)


def test_a_name_with_two_addresses_is_asked_at_the_one_that_answers(
    here: Site, host: WindowsHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tuple(map(host_addresses.literal_address, ("127.9.9.9", host.address[0])))
    monkeypatch.setattr(host_addresses, "_look_up", lambda _: found)
    assert here.poll(("two.example", host.address[1])).misses == {}


@pytest.mark.parametrize("error_seconds", [-A_YEAR_SECONDS, A_YEAR_SECONDS])
def test_a_clock_that_is_off_by_a_year_changes_no_figure(
    here: Site, host: WindowsHost, error_seconds: float
) -> None:
    host.machine = Machine(clock_error_seconds=error_seconds)
    reading = here.poll(host)
    assert reading.misses == {}
    assert 86_400 <= reading.values[UPTIME] < 86_500


@pytest.mark.parametrize("hostname", ["", "web server 1", "a/b", "ü", "a" * 5000, "host:1"])
def test_a_device_whose_name_is_for_people_is_asked_by_its_address(
    here: Site, host: WindowsHost, hostname: str
) -> None:
    async def scenario() -> DeviceReading:
        async with WinRm(QUICK, {"windows": here.login()}) as probe:
            return await probe.poll(device(host, hostname=hostname), [CPU_UTILIZATION])

    assert asyncio.run(scenario()).misses == {}


def test_a_host_that_speaks_ipv6_alone_is_polled(here: Site) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with WindowsHost("::1") as host:
        reading = here.poll(host, here.login(server_name="address"))
    assert reading.misses == {}


def test_an_unknown_credential_is_our_own_fault(here: Site, host: WindowsHost) -> None:
    async def scenario() -> DeviceReading:
        async with WinRm(QUICK, {}) as probe:
            return await probe.poll(device(host), HOST_METRICS)

    assert_lost(asyncio.run(scenario()), Miss.CREDENTIAL, "called 'windows'", is_up=False)


def test_a_password_or_ca_file_that_is_not_there_is_our_own_fault(
    here: Site, host: WindowsHost
) -> None:
    reading = here.poll(host, here.login(password={"env": "NO_SUCH_VARIABLE"}))
    assert_lost(reading, Miss.CREDENTIAL, "NO_SUCH_VARIABLE", is_up=False)
    nowhere = here.login(transport="https", ca_file=here.folder / "nowhere.pem")
    assert_lost(here.poll(host, nowhere), Miss.CREDENTIAL, "nowhere.pem", is_up=False)
    assert host.connections == 0


@pytest.mark.parametrize(
    ("fault", "miss", "words"),
    [
        (Answer(200, b"<html><br></html>", SOAP), Miss.PARSE, "in the clear"),
        (Reply(b"<html><br>"), Miss.PARSE, "not XML"),
        (Reply(b"<!DOCTYPE html><html></html>"), Miss.PARSE, "document type declaration"),
        (Reply(BOMB.encode()), Miss.PARSE, "document type declaration"),
        (Reply(BOMB.encode(), 500), Miss.REFUSED, "HTTP 500"),
        (Reply(ENVELOPE.format("").encode()[:80]), Miss.PARSE, "not XML"),
        (Reply(ENVELOPE.format("").encode()), Miss.PARSE, "without an EnumerateResponse"),
        (Reply(ENVELOPE.replace("%", "").format("").encode()), Miss.PARSE, "related id"),
        (Reply(b""), Miss.PARSE, "not XML"),
        (Reply(b"<a>" * 100_000 + b"</a>" * 100_000), Miss.PARSE, "cannot be read"),
        (Answer(404, b"no such page"), Miss.REFUSED, "HTTP 404: 'no such page'"),
        (Answer(503, b"<html>busy</html>"), Miss.REFUSED, "HTTP 503"),
        (Answer(403, b""), Miss.REFUSED, "HTTP 403"),
        (Answer(302, b"", {"Location": "http://127.0.0.9/"}), Miss.REFUSED, "redirects to"),
        (
            Answer(500, gzip.compress(bytes(1_000_000)), {"Content-Encoding": "gzip"}),
            Miss.PARSE,
            "compressed",
        ),
        (
            Answer(500, b"", {"Content-Length": str(10**12)}),
            Miss.TIMEOUT,
            "no answer in time",
        ),
        (
            Answer(500, bytes(winrm_session.MAX_POLL_BYTES + 1)),
            Miss.PARSE,
            "more than 8000000 bytes",
        ),
        (Answer(401, b"", {"WWW-Authenticate": "Basic"}), Miss.AUTH, "HTTP 401"),
    ],
)
def test_an_answer_that_is_wrong_ends_the_poll_with_its_reason(
    here: Site, host: WindowsHost, fault: Fault, miss: Miss, words: str
) -> None:
    host.faults.append(fault)
    reading = here.poll(host, settings=IMPATIENT)
    assert_lost(reading, miss, words, is_up=True)


@pytest.mark.parametrize(
    "kind",
    [
        'multipart/encrypted;boundary="Encrypted Boundary"',
        'multipart/encrypted;protocol="application/HTTP-SPNEGO-session-encrypted"',
        'multipart/x-multi-encrypted;boundary="x"',
    ],
)
@given(
    payload=st.binary(max_size=100)
    | st.binary(max_size=60).map(
        lambda tail: (
            b"--Encrypted Boundary\r\n\tOriginalContent: Length=5\r\n"
            b"--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n" + tail
        )
    )
)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_comes_instead_of_an_encrypted_answer_is_a_miss(
    here: Site, host: WindowsHost, kind: str, payload: bytes
) -> None:
    host.faults.append(Answer(200, payload, {"Content-Type": kind}))
    reading = here.poll(host, metrics=[CPU_UTILIZATION])
    assert reading.reason in (Miss.PARSE, Miss.AUTH)


@given(reply=st.binary(max_size=200) | st.text(alphabet="<>/s:Body&; ").map(str.encode))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_an_envelope_holds_is_a_miss(here: Site, host: WindowsHost, reply: bytes) -> None:
    host.faults.append(Reply(reply))
    assert here.poll(host, metrics=[CPU_UTILIZATION]).reason is Miss.PARSE


@given(head=st.binary(max_size=200))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_a_stranger_sends_is_a_miss(here: Site, head: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 " + head)

    with peer(answer) as stranger:
        reading = here.poll(stranger, metrics=[CPU_UTILIZATION], settings=IMPATIENT)
    assert reading.reason is not None


def test_a_log_in_that_spnego_rejects_is_an_auth_miss(here: Site) -> None:
    reject = base64.b64encode(bytes.fromhex("a1073005a0030a0102"))  # negState, RFC 4178 4.2.2

    def answer(connection: socket.socket) -> None:
        for token in (b"", reject):
            connection.recv(65_536)
            connection.sendall(
                b"HTTP/1.1 401 No\r\nWWW-Authenticate: Negotiate %b\r\n"
                b"Content-Length: 0\r\n\r\n" % token
            )

    with peer(answer) as stranger:
        reading = here.poll(stranger)
    assert_lost(reading, Miss.AUTH, "Received SPNEGO rejection", is_up=True)


@given(place=st.integers(min_value=0, max_value=200), noise=st.binary(max_size=12))
@example(place=130, noise=bytes([255] * 12))  # a time beyond the year 9999
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_a_stranger_says_when_we_log_in_is_a_miss(
    here: Site, place: int, noise: bytes
) -> None:
    def answer(connection: socket.socket) -> None:
        acceptor = spnego.server()
        token = b""
        for _ in range(3):
            asked = re.search(rb"Negotiate (\S+)", connection.recv(65_536))
            if asked is not None:
                challenge = acceptor.step(base64.b64decode(asked[1])) or b""
                token = challenge[:place] + noise + challenge[place + len(noise) :]
            mark = base64.b64encode(token)
            connection.sendall(
                b"HTTP/1.1 401 No\r\nWWW-Authenticate: Negotiate %b\r\n"
                b"Content-Length: 0\r\n\r\n" % mark
            )
            if asked is not None:
                return

    with peer(answer) as stranger:
        reading = here.poll(stranger, metrics=[CPU_UTILIZATION], settings=IMPATIENT)
    assert reading.reason in (Miss.PARSE, Miss.AUTH, Miss.REFUSED)


def test_an_answer_in_drops_ends_when_nobody_waits_any_more(here: Site, host: WindowsHost) -> None:
    host.faults.append(Answer(500, bytes(10_000), SOAP, seconds_per_byte=0.02))

    async def scenario() -> float:
        async with WinRm(QUICK, {"windows": here.login()}) as probe:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(probe.poll(device(host), HOST_METRICS), 0.3)
            left = time.monotonic()
        return time.monotonic() - left

    # Leaving the probe waits for its threads: this one does not wait for its 5 s.
    assert asyncio.run(scenario()) < QUICK.timeout_seconds / 2


def test_a_poll_that_is_cancelled_leaves_no_thread_and_no_connection(
    here: Site, host: WindowsHost
) -> None:
    host.faults.append(NoAnswer())
    before = threading.active_count()

    async def scenario() -> None:
        async with WinRm(QUICK, {"windows": here.login()}) as probe:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(probe.poll(device(host), HOST_METRICS), 0.3)

    started = time.monotonic()
    asyncio.run(scenario())
    assert time.monotonic() - started < QUICK.timeout_seconds / 2
    # The host's own thread for the connection is still there.
    assert threading.active_count() <= before + 1


def test_failing_polls_leave_no_descriptor_behind(
    here: Site, certificate: Path, host: WindowsHost
) -> None:
    before = open_descriptors()
    for _ in range(5):
        host.faults.append(Answer(302, b"x" * 100))
        here.poll(host)
        here.poll(host, secure(here, certificate))
        here.poll(host, here.login(user="nobody"))
    # What is left are the host's own ends, which it closes a moment later.
    assert len(open_descriptors() - before) <= 4


def test_a_silent_host_holds_up_no_other(here: Site) -> None:
    async def scenario(hosts: list[WindowsHost]) -> list[DeviceReading]:
        settings = WinRmSettings(timeout_seconds=1, max_at_once=4)
        async with WinRm(settings, {"windows": here.login()}) as probe:
            polls = (probe.poll(device(h, id=str(n)), HOST_METRICS) for n, h in enumerate(hosts))
            return await asyncio.gather(*polls)

    with (
        WindowsHost("127.0.0.2") as first,
        WindowsHost("127.0.0.3") as silent,
        WindowsHost("127.0.0.4") as last,
    ):
        silent.faults.append(NoAnswer())
        readings = asyncio.run(scenario([first, silent, last]))
    assert [reading.device_id for reading in readings] == ["0", "1", "2"]
    assert [len(reading.values) for reading in readings] == [7, 0, 7]


def test_hosts_that_take_no_connection_keep_no_thread_from_others(
    here: Site, host: WindowsHost
) -> None:
    async def scenario(dead: tuple[str, int]) -> list[DeviceReading]:
        settings = WinRmSettings(timeout_seconds=5, max_at_once=1)
        async with WinRm(settings, {"windows": here.login()}) as probe:
            silent = [
                asyncio.create_task(probe.poll(device(dead, id=str(n)), HOST_METRICS))
                for n in range(200)
            ]
            await asyncio.sleep(0)
            living = await probe.poll(device(host), HOST_METRICS)
            still_waiting = sum(not each.done() for each in silent)
            assert (living.reason, still_waiting) == (None, 200)
            return await asyncio.gather(*silent)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        silence(listener)
        readings = asyncio.run(scenario(listener.getsockname()))
    # All of them at the same time: one after the other would not have ended.
    assert {reading.reason for reading in readings} == {Miss.TIMEOUT}


def test_polls_that_wait_for_a_thread_can_be_cancelled(here: Site, host: WindowsHost) -> None:
    host.faults.append(NoAnswer())

    async def scenario() -> None:
        settings = WinRmSettings(timeout_seconds=5, max_at_once=1)
        async with WinRm(settings, {"windows": here.login()}) as probe:
            polls = (probe.poll(device(host, id=str(n)), HOST_METRICS) for n in range(3))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*polls), 0.3)

    asyncio.run(scenario())
    assert host.logins <= 1


def test_two_polls_of_one_device_at_once_do_not_share_a_connection(
    here: Site, host: WindowsHost
) -> None:
    async def scenario() -> list[DeviceReading]:
        async with WinRm(QUICK, {"windows": here.login()}) as probe:
            polls = [probe.poll(device(host), HOST_METRICS) for _ in range(4)]
            return await asyncio.gather(*polls)

    assert [reading.misses for reading in asyncio.run(scenario())] == [{}] * 4
    assert (host.connections, host.logins) == (4, 4)


def test_an_operator_sees_each_step_and_no_secret(here: Site, host: WindowsHost) -> None:
    host.missing = {"MSAcpi_ThermalZoneTemperature"}
    lines: list[str] = []
    here.poll(host, trace=lines.append)
    assert lines[0].startswith("connecting to 127.0.0.1 port")
    assert "Win32_LogicalDisk: 2 rows" in lines
    assert lines[-1].startswith("MSAcpi_ThermalZoneTemperature: unsupported: The specified class")
    assert PASSWORD not in "".join(lines)


def test_the_environment_and_its_proxies_have_no_say(
    here: Site, host: WindowsHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    assert here.poll(host).misses == {}


def test_kerberos_without_its_extra_says_what_is_missing(here: Site, host: WindowsHost) -> None:
    # In a process of its own, so that it does not matter whether the extra is installed here.
    without = (
        "import sys; from pathlib import Path; sys.modules.update(krb5=None, gssapi=None); "
        "from metrics_pipeline_tests.windows_hosts import Site; here = Site(Path(sys.argv[1])); "
        "reading = here.poll((sys.argv[2], int(sys.argv[3])), here.login(auth='kerberos')); "
        "print(reading.is_up, reading.reason, reading.detail)"
    )
    argv = [sys.executable, "-c", without, str(here.folder), *map(str, host.address)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("True credential ")
    assert "needs the extra `kerberos`" in done.stdout


class Realm:
    """Kerberos, real but for Windows: a KDC of Debian's krb5-kdc, which knows user and host."""

    user = "monitor@EXAMPLE.TEST"
    hostname = "win.example.test"


@pytest.fixture
def realm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Realm]:
    require_module("krb5", "make install-kerberos")
    monkeypatch.setenv("PATH", "/usr/sbin", prepend=":")
    with kerberos_realm(tmp_path, {Realm.user: PASSWORD}, f"WSMAN/{Realm.hostname}") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield Realm()


def poll_with_kerberos(here: Site, host: WindowsHost, **changes: object) -> DeviceReading:
    login = here.login(**({"user": Realm.user, "auth": "kerberos"} | changes))

    async def scenario() -> DeviceReading:
        async with WinRm(QUICK, {"windows": login}) as probe:
            return await probe.poll(device(host, hostname=Realm.hostname), HOST_METRICS)

    return asyncio.run(scenario())


@pytest.mark.parametrize("auth", ["kerberos", "negotiate"])
@pytest.mark.parametrize("is_https", [True, False])
def test_kerberos_lets_us_in(here: Site, realm: Realm, auth: str, is_https: bool) -> None:
    certificate = self_signed(here.folder, realm.hostname) if is_https else None
    changes = {"transport": "https", "ca_file": certificate} if is_https else {}
    with WindowsHost(certificate=certificate) as host:
        reading = poll_with_kerberos(here, host, auth=auth, **changes)
    assert (reading.misses, reading.detail) == ({}, "")


def test_a_wrong_kerberos_password_is_an_auth_miss(
    here: Site, realm: Realm, host: WindowsHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOTHER_PASSWORD", "guessed-wrong")
    reading = poll_with_kerberos(here, host, password={"env": "ANOTHER_PASSWORD"})
    assert_lost(reading, Miss.AUTH, "logging in failed", is_up=True)
    unknown = poll_with_kerberos(here, host, user="nobody@EXAMPLE.TEST")
    assert_lost(unknown, Miss.AUTH, "not found in Kerberos database", is_up=True)


def test_a_realm_without_a_kdc_is_our_own_fault(
    here: Site, realm: Realm, host: WindowsHost
) -> None:
    reading = poll_with_kerberos(here, host, user="monitor@NOWHERE.TEST")
    assert_lost(reading, Miss.CREDENTIAL, "no Kerberos ticket: Cannot find KDC", is_up=True)


def test_dead_hosts_leave_no_line_in_the_log(
    here: Site, host: WindowsHost, caplog: pytest.LogCaptureFixture
) -> None:
    host.faults.append(NoAnswer())
    with caplog.at_level(logging.DEBUG):
        here.poll(host, settings=IMPATIENT)
    assert [r for r in caplog.records if r.name.startswith(("pypsrp", "spnego"))] == []
    assert PASSWORD not in caplog.text


def test_a_secret_is_in_no_repr(here: Site) -> None:
    login = here.login()
    asked = winrm_session.Peer("h", 1, None, USER, PASSWORD, "ntlm", 1.0)
    assert PASSWORD not in repr(login) + repr(asked)


@pytest.mark.parametrize(
    "changes", [{"auth": "basic"}, {"user": ""}, {"transport": "ftp"}, {"password": PASSWORD}]
)
def test_a_credential_that_is_no_good_is_refused_before_anything_is_asked(
    here: Site, changes: dict[str, object]
) -> None:
    with pytest.raises(ValidationError) as refused:
        here.login(**changes)
    assert PASSWORD not in str(refused.value)
