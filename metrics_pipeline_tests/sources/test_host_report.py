"""The report of a host: what its parser makes of several systems, and of nonsense; the script."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DETAILS,
    DISK_USAGE,
    DISKS,
    HOST_METRICS,
    INTERFACES,
    MEMORY_UTILIZATION,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    TEMPERATURE,
    UPTIME,
    Details,
    Miss,
)
from metrics_pipeline.simulators import ssh_host
from metrics_pipeline.sources import host_report
from metrics_pipeline.sources.host_report import CpuTicks, NotAReport, parse_report
from metrics_pipeline.sources.ssh import SCRIPT
from metrics_pipeline_tests.servers import require
from metrics_pipeline_tests.sources.host_report_fixtures import (
    ALPINE,
    DEBIAN,
    FREEBSD,
    MACOS,
    OPENBSD,
)

SYSTEMS = {"Debian": DEBIAN, "Alpine": ALPINE, "FreeBSD": FREEBSD, "OpenBSD": OPENBSD}
SYSTEMS["macOS"] = MACOS

BY_HAND: Mapping[str, Mapping[str, float]] = {
    "Debian": {
        CPU_UTILIZATION: 100 * 20 / 40,
        MEMORY_UTILIZATION: 100 * (24684096 - 23463440) / 24684096,
        NETWORK_RECEIVE: 2472115737,
        NETWORK_TRANSMIT: 5477880,
        DISK_USAGE: 100 * 25399244 / (25399244 + 80991668),
        UPTIME: 16053.71,
    },
    "Alpine": {
        CPU_UTILIZATION: 100 * 40 / 100,
        MEMORY_UTILIZATION: 50.0,
        TEMPERATURE: 51.0,
        NETWORK_RECEIVE: float(2**64 - 1 + 5),
        NETWORK_TRANSMIT: 30,
        DISK_USAGE: 90.0,
        UPTIME: 86400.55,
    },
    "FreeBSD": {
        CPU_UTILIZATION: 30.0,
        MEMORY_UTILIZATION: 60.0,
        TEMPERATURE: 53.0,
        NETWORK_RECEIVE: 5_000_000_005,
        NETWORK_TRANSMIT: 3_000_000_007,
        DISK_USAGE: 100.0,
        UPTIME: 12 * 86400 + 3 * 3600 + 4 * 60 + 5,
    },
    "OpenBSD": {
        CPU_UTILIZATION: 20.0,
        MEMORY_UTILIZATION: 100 * (526 - 291) / 2000,
        TEMPERATURE: 48.0,
        NETWORK_RECEIVE: 123456789,
        NETWORK_TRANSMIT: 87654321,
        DISK_USAGE: 50.0,
        UPTIME: 3 * 3600 + 4 * 60 + 5,
    },
    "macOS": {
        CPU_UTILIZATION: 7.25,
        MEMORY_UTILIZATION: 100 * (300000 + 150000 + 50000 - 20000) * 16384 / 2**34,
        NETWORK_RECEIVE: 987654321,
        NETWORK_TRANSMIT: 123456789,
        DISK_USAGE: 60.0,
        UPTIME: 123,
    },
}
"""Worked out from the fixtures with pencil and paper."""


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_system_says_what_was_worked_out_by_hand(system: str) -> None:
    report = parse_report(SYSTEMS[system].encode())
    assert report.values == pytest.approx(BY_HAND[system])
    assert set(report.misses) == set(HOST_METRICS) - set(BY_HAND[system])
    assert set(report.misses.values()) <= {Miss.UNSUPPORTED}
    assert report.is_whole


def port(received: int, sent: int) -> dict[str, float]:
    return {NETWORK_RECEIVE: float(received), NETWORK_TRANSMIT: float(sent)}


def disk(percent: float) -> dict[str, float]:
    return {DISK_USAGE: percent}


ROWS_BY_HAND: Mapping[str, Details] = {
    "Debian": {
        INTERFACES: {"eth0": port(2472115737, 5477880)},
        DISKS: {"/": disk(100 * 25399244 / (25399244 + 80991668))},
    },
    "Alpine": {
        INTERFACES: {"eth0": port(2**64 - 1, 10), "wlan0": port(5, 20)},
        DISKS: {"/": disk(20), "/srv/data and more": disk(90)},
    },
    "FreeBSD": {
        INTERFACES: {"em0": port(5_000_000_000, 3_000_000_000), "igb0": port(5, 7)},
        DISKS: {
            "/": disk(20),
            "/usr/home": disk(100 * 5 / 45),
            "/full beyond its reserve": disk(100),
        },
    },
    "OpenBSD": {
        INTERFACES: {"em0": port(123456789, 87654321)},
        DISKS: {"/": disk(100 * 10 / 101), "/home": disk(50)},
    },
    "macOS": {
        INTERFACES: {"en5": port(987654321, 123456789)},
        DISKS: {"/": disk(25), "/System/Volumes/Data": disk(60)},
    },
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_system_names_its_interfaces_and_its_disks(system: str) -> None:
    report = parse_report(SYSTEMS[system].encode(), tables=DETAILS)
    assert report.details.keys() == ROWS_BY_HAND[system].keys()
    for table, rows in ROWS_BY_HAND[system].items():
        assert report.details[table].keys() == rows.keys()
        for name, values in rows.items():
            assert report.details[table][name] == pytest.approx(values)
    assert report.values == pytest.approx(BY_HAND[system])
    assert parse_report(SYSTEMS[system].encode(), tables=[DISKS]).details.keys() == {DISKS}


def test_a_host_without_disks_or_interfaces_has_no_such_table() -> None:
    for section, table in (("interfaces", INTERFACES), ("df", DISKS)):
        report = parse_report(without(section), tables=DETAILS)
        assert report.details.keys() == set(DETAILS) - {table}
        assert report.misses[table] is Miss.UNSUPPORTED


def test_a_counter_that_cannot_be_right_costs_the_table() -> None:
    report = parse_report(DEBIAN.replace("2472115737", "-1").encode(), tables=DETAILS)
    assert report.misses[INTERFACES] is Miss.PARSE
    assert report.details.keys() == {DISKS}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_report_that_breaks_off_gives_whole_tables_or_none(system: str) -> None:
    text = SYSTEMS[system].encode()
    whole = parse_report(text, tables=DETAILS)
    for length in range(len(host_report.BEGIN), len(text) - len(host_report.END) - 1, 7):
        part = parse_report(text[:length], if_broken_off=Miss.TIMEOUT, tables=DETAILS)
        assert part.details.items() <= whole.details.items()
        assert all(t in part.details or part.misses[t] is Miss.TIMEOUT for t in DETAILS)


def test_what_a_start_up_file_prints_is_no_part_of_the_report() -> None:
    before = f"Willkommen, caf\xe9!\n{host_report.BEGIN}\n@proc_uptime\n5.0 5.0\n".encode("latin-1")
    assert parse_report(before + DEBIAN.encode() + b"bye\n") == parse_report(DEBIAN.encode())


@pytest.mark.parametrize("header", ["", "Name", "a b c", "Ibytes Obytes", "Name Ibytes Obytes"])
def test_a_table_of_interfaces_without_its_columns_is_none(header: str) -> None:
    row = "em0 1500 <Link#1> 00:0c:29:01:02:03 1 2"
    rows = "\n".join(row[:at] for at in range(len(row)))
    report = parse_report(
        f"{host_report.BEGIN}\n@netstat\n{header}\n{rows}\n{host_report.END}\n".encode()
    )
    assert report.values == {}
    assert report.misses[NETWORK_RECEIVE] is Miss.UNSUPPORTED


@pytest.mark.parametrize("output", [b"", b"Welcome\n", b"\xff\x00", host_report.END.encode()])
def test_output_without_a_report_is_not_a_report(output: bytes) -> None:
    with pytest.raises(NotAReport):
        parse_report(output)


def test_carriage_returns_do_no_harm() -> None:
    text = DEBIAN.replace("\n", "\r\n")
    assert parse_report(text.encode()) == parse_report(DEBIAN.encode())


def without(section: str) -> bytes:
    """DEBIAN's report with an empty section."""
    return re.sub(rf"@{section}\n[^@]*?(?=@|metrics)", f"@{section}\n", DEBIAN).encode()


@pytest.mark.parametrize(
    ("section", "metrics"),
    [
        ("proc_uptime", {UPTIME}),
        ("meminfo", {MEMORY_UTILIZATION}),
        ("interfaces", {NETWORK_RECEIVE, NETWORK_TRANSMIT}),
        ("proc_stat", {CPU_UTILIZATION}),
        ("df", {DISK_USAGE}),
    ],
)
def test_what_a_host_has_not_is_unsupported_and_the_rest_is_there(
    section: str, metrics: set[str]
) -> None:
    report = parse_report(without(section))
    assert {name for name in report.misses if name != TEMPERATURE} == metrics
    assert set(report.misses.values()) == {Miss.UNSUPPORTED}


@pytest.mark.parametrize(
    ("was", "becomes", "metric"),
    [
        ("MemAvailable:   23463440", "MemAvailable:   99463440", MEMORY_UTILIZATION),
        ("MemTotal:       24684096", "MemTotal:       0", MEMORY_UTILIZATION),
        ("MemTotal:       24684096", f"MemTotal: {'9' * 30}", MEMORY_UTILIZATION),
        ("16053.71", "16053,71", UPTIME),
        ("16053.71", "-5", UPTIME),
        ("2472115737", "-1", NETWORK_RECEIVE),
        ("2472115737", str(2**64), NETWORK_RECEIVE),
        ("25399244", "much", DISK_USAGE),
        ("2659434", "x", CPU_UTILIZATION),
        ("@millidegrees\n", "@millidegrees\n9999999\n", TEMPERATURE),
        ("@millidegrees\n", "@millidegrees\n-274000\n127500\n", TEMPERATURE),
        ("@millidegrees\n", "@millidegrees\nhot\n", TEMPERATURE),
    ],
)
def test_what_cannot_be_right_is_no_value(was: str, becomes: str, metric: str) -> None:
    assert was in DEBIAN
    report = parse_report(DEBIAN.replace(was, becomes).encode())
    assert report.misses[metric] is Miss.PARSE
    assert set(report.values) == set(BY_HAND["Debian"]) - {metric}


def one_sample(ticks: str) -> bytes:
    return re.sub("@proc_stat\n[^@]*", f"@proc_stat\ncpu  {ticks}\n", DEBIAN).encode()


def test_cpu_is_what_was_used_since_the_earlier_poll() -> None:
    first = parse_report(one_sample("100 0 0 900 0 0 0 0 0 0"))
    assert first.ticks == CpuTicks(idle=900, total=1000)
    second = parse_report(one_sample("400 0 0 1600 0 0 0 0 0 0"), first.ticks)
    assert second.values[CPU_UTILIZATION] == pytest.approx(30.0)


def test_waiting_for_a_disk_is_idle_and_time_stolen_by_a_hypervisor_is_not() -> None:
    report = parse_report(one_sample("0 0 0 40 20 0 0 40 0 0"), CpuTicks(0, 0))
    assert report.values[CPU_UTILIZATION] == pytest.approx(40.0)


def test_after_a_restart_cpu_is_what_was_used_since_then() -> None:
    report = parse_report(one_sample("25 0 0 75 0 0 0 0 0 0"), CpuTicks(10_000, 20_000))
    assert report.values[CPU_UTILIZATION] == pytest.approx(25.0)


def test_idle_time_that_the_kernel_takes_back_is_not_a_negative_load() -> None:
    report = parse_report(one_sample("110 0 0 890 0 0 0 0 0 0"), CpuTicks(900, 900))
    assert report.values[CPU_UTILIZATION] == 100.0


def test_ticks_that_stand_still_give_no_load() -> None:
    report = parse_report(one_sample("100 0 0 900 0 0 0 0 0 0"), CpuTicks(900, 1000))
    assert report.misses[CPU_UTILIZATION] is Miss.PARSE


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_report_that_breaks_off_never_gives_another_value(system: str) -> None:
    text = SYSTEMS[system].encode()
    whole = parse_report(text)
    for length in range(len(host_report.BEGIN), len(text) - len(host_report.END) - 1):
        part = parse_report(text[:length], if_broken_off=Miss.TIMEOUT)
        assert part.values.items() <= whole.values.items()
        assert set(part.values) | set(part.misses) == set(HOST_METRICS)
        assert set(part.misses.values()) <= {Miss.TIMEOUT, Miss.UNSUPPORTED}
        assert not part.is_whole


def is_sound(values: Mapping[str, float]) -> bool:
    shares = (CPU_UTILIZATION, MEMORY_UTILIZATION, DISK_USAGE)
    return (
        all(0 <= values[name] <= 100 for name in shares if name in values)
        and -40 <= values.get(TEMPERATURE, 0) <= 125
        and all(0 <= values.get(name, 0) < 1e30 for name in HOST_METRICS if name != TEMPERATURE)
    )


@given(output=st.binary())
def test_any_bytes_are_a_sound_report_or_none(output: bytes) -> None:
    report = parse_report(host_report.BEGIN.encode() + b"\n" + output)
    assert is_sound(report.values)
    assert set(report.values) | set(report.misses) == set(HOST_METRICS)


@given(
    system=st.sampled_from(sorted(SYSTEMS)),
    changes=st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True),
            st.sampled_from(["", "9" * 25, "-", "0", " ", "\n", "@df\n", "é", ".", ":", "%", "/"]),
        ),
        max_size=12,
    ),
)
def test_a_report_with_errors_in_it_is_sound(system: str, changes: list[tuple[float, str]]) -> None:
    text = SYSTEMS[system].removeprefix(host_report.BEGIN)
    for where, what in changes:
        at = int(where * len(text))
        text = text[:at] + what + text[at + 1 :]
    report = parse_report((host_report.BEGIN + text).encode(), tables=DETAILS)
    assert is_sound(report.values)
    assert set(report.values) | set(report.misses) - set(DETAILS) == set(HOST_METRICS)
    assert all((table in report.details) != (table in report.misses) for table in DETAILS)
    assert all(is_sound(row) for rows in report.details.values() for row in rows.values())


@given(
    busy=st.floats(0, 1),
    memory=st.floats(0.01, 1),
    disk=st.floats(0.001, 1),
    celsius=st.floats(-39, 124),
    system=st.sampled_from(["Linux", "FreeBSD"]),
)
def test_what_a_simulated_host_means_is_what_is_read(
    busy: float, memory: float, disk: float, celsius: float, system: str
) -> None:
    figures = ssh_host.HostFigures(
        system, busy_share=busy, memory_share=memory, disk_share=disk, celsius=celsius
    )
    text = ssh_host.report(figures, [figures, figures.after(100)])
    assert parse_report(text.encode()).values == pytest.approx(figures.values(), abs=0.06)


def test_a_line_without_end_costs_no_time() -> None:
    long = "x " * 200_000
    text = DEBIAN.replace("@df\n", f"@df\n{long}\n").replace("@meminfo\n", f"@meminfo\n{long}\n")
    assert parse_report(text.encode()).values == parse_report(DEBIAN.encode()).values


# The script

SHELLS = (["dash"], ["bash", "--posix"], ["busybox", "sh"])
shells = pytest.mark.parametrize("shell", SHELLS, ids=" ".join)


def run_script(
    shell: list[str], *arguments: str, tools: Path | None = None, **environment: str
) -> bytes:
    """What the script prints, given to the shell as the probe gives it to the log-in shell."""
    path = f"{tools}:{os.environ['PATH']}" if tools else os.environ["PATH"]
    argv = [require(shell[0]), *shell[1:], "-s", *arguments]
    done = subprocess.run(
        argv, input=SCRIPT, capture_output=True, check=True, env={"PATH": path, **environment}
    )
    assert done.stderr == b""
    return done.stdout


def make_tool(folder: Path, name: str, body: str) -> None:
    """A program called `name` that runs `body` in a shell."""
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{body}\n")
    tool.chmod(0o755)


@shells
def test_the_script_reads_this_machine_as_one_does_by_hand(shell: list[str]) -> None:
    before = float(Path("/proc/uptime").read_text().split()[0])
    report = parse_report(run_script(shell, "0.1"))
    after = float(Path("/proc/uptime").read_text().split()[0])
    assert report.is_whole
    assert before <= report.values[UPTIME] <= after
    meminfo = {
        line.split(":")[0]: int(line.split()[1])
        for line in Path("/proc/meminfo").read_text().splitlines()
    }
    used = 100 * (1 - meminfo["MemAvailable"] / meminfo["MemTotal"])
    assert report.values[MEMORY_UTILIZATION] == pytest.approx(used, abs=10)
    assert 0 <= report.values[CPU_UTILIZATION] <= 100


@shells
def test_zero_seconds_take_one_sample_of_the_processor(shell: list[str]) -> None:
    assert run_script(shell, "0").count(b"\ncpu ") == 1
    assert run_script(shell, "0.01").count(b"\ncpu ") == 2


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    """A proc and a sys as a machine with everything has them."""
    root = tmp_path / "root"
    files = {
        "proc/stat": "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n",
        "proc/uptime": "12.5 3.0\n",
        "proc/meminfo": "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\nDirty: 5\n",
        "proc/mounts": MOUNTS,
        "sys/class/thermal/thermal_zone0/temp": "41000\n",
        "sys/class/hwmon/hwmon0/temp1_input": "62500\n",
        "sys/class/hwmon/hwmon0/temp2_input": "99000\n",
        "sys/class/hwmon/hwmon0/temp2_fault": "1\n",
        "sys/class/hwmon/hwmon1/device/temp1_input": "50000\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    make_interface(root, "eth0", "up", 1000, 2000)
    make_interface(root, "usb0", "unknown", 10, 20)
    make_interface(root, "eth1", "down", 5, 5)
    make_interface(root, "virtual-function", "up", 7, 7, master="eth0")
    make_interface(root, "conduit", "up", 9, 9, dsa=True)
    make_interface(root, "bond0", "up", 3, 3, is_physical=False)
    make_interface(root, "bonded", "up", 100, 200, master="bond0")
    return root


MOUNTS = r"""proc /proc proc rw 0 0
/dev/sda1 / ext4 rw 0 0
tmpfs /run tmpfs rw 0 0
overlay /var/lib/docker/overlay2/1/merged overlay rw 0 0
/dev/loop0 /snap/core/1 squashfs ro 0 0
/dev/sr0 /media/dvd iso9660 ro 0 0
server:/export /mnt/hangs nfs4 rw 0 0
/etc/auto.misc /misc autofs rw 0 0
/dev/sda1 /var/bind ext4 rw 0 0
/dev/sdb1 /srv/my\040data xfs rw 0 0
pool/home /home zfs rw 0 0
"""


def make_interface(
    root: Path, name: str, state: str, received: int, sent: int, **more: object
) -> None:
    folder = root / "sys/class/net" / name
    (folder / "statistics").mkdir(parents=True)
    (folder / "operstate").write_text(f"{state}\n")
    (folder / "statistics/rx_bytes").write_text(f"{received}\n")
    (folder / "statistics/tx_bytes").write_text(f"{sent}\n")
    if more.get("is_physical", True):
        (folder / "device").mkdir()
    if more.get("dsa"):
        (folder / "dsa").mkdir()
    if "master" in more:
        (folder / "master").symlink_to(f"../{more['master']}")


@shells
def test_on_linux_only_what_is_real_is_counted(
    shell: list[str], linux: Path, tmp_path: Path
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    make_tool(tools, "df", 'printf "%s\\n" "$@" "$LC_ALL" >"${0%/*}/asked"')
    report = parse_report(run_script(shell, "0", str(linux), tools=tools))
    assert report.values == {
        MEMORY_UTILIZATION: 60.0,
        TEMPERATURE: 62.5,
        NETWORK_RECEIVE: 1110.0,
        NETWORK_TRANSMIT: 2220.0,
        UPTIME: 12.5,
    }
    asked = (tools / "asked").read_text().splitlines()
    assert asked == ["-P", "-k", "/", "/srv/my data", "/home", "C"]


@shells
def test_a_machine_with_nothing_but_a_kernel_gives_a_report(
    shell: list[str], tmp_path: Path
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/class/net").mkdir(parents=True)
    (tmp_path / "proc/stat").write_text("cpu  1 2 3 4\n")
    report = parse_report(run_script(shell, "0", str(tmp_path)))
    assert report.is_whole
    assert set(report.misses) == set(HOST_METRICS)


@shells
@pytest.mark.parametrize("system", ["FreeBSD", "OpenBSD", "macOS"])
def test_on_other_systems_the_script_asks_for_what_the_fixtures_hold(
    shell: list[str], system: str, tmp_path: Path
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    make_tools_of(system, tools)
    nowhere = tmp_path / "nowhere"
    report = parse_report(run_script(shell, "0.01", str(nowhere), tools=tools))
    assert report.values == pytest.approx(BY_HAND[system])


def make_tools_of(system: str, tools: Path) -> None:
    """The tools of a system, each of which prints its part of the fixture."""
    parts = dict(re.findall(r"@(\w+)\n([^@]*?)(?=@|metrics-pipeline)", SYSTEMS[system]))
    for name, text in parts.items():
        (tools / f"{name}.txt").write_text(text)
    show = f"cat {tools}/"
    names = {"macOS": "Darwin"}
    make_tool(tools, "uname", f"echo {names.get(system, system)}")
    make_tool(tools, "ps", f"{show}etime.txt")
    make_tool(tools, "netstat", f"{show}netstat.txt")
    make_tool(tools, "df", f'[ "$*" = "-P -k -l" ] && {show}df.txt')
    make_tool(tools, "vm_stat", f"grep -v hw.memsize {tools}/vm_stat.txt")
    make_tool(tools, "top", f"echo; {show}top_*.txt; echo Processes: 1")
    make_tool(
        tools,
        "sysctl",
        f"""case $1 in
        kern.cp_time)
            if [ -e {tools}/again ]; then which=tail; else which=head; fi
            $which -n 1 {tools}/cp_time.txt
            touch {tools}/again ;;
        hw.pagesize) {show}vm_stats.txt; echo "sysctl: unknown oid" >&2; exit 1 ;;
        hw.memsize) grep hw.memsize {tools}/vm_stat.txt ;;
        *) echo "dev.cpu.0.freq: 2400"; {show}degrees.txt ;;
        esac""",
    )


def test_a_sleep_that_knows_whole_seconds_only_sleeps_one(linux: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    make_tool(tools, "sleep", f'echo "$1" >>{tools}/slept; case $1 in *.*) exit 1 ;; esac')
    assert run_script(["dash"], "0.5", str(linux), tools=tools).count(b"\ncpu ") == 2
    assert (tools / "slept").read_text().split() == ["0.5", "1"]


def test_a_locale_with_a_decimal_comma_is_not_the_reports(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    make_tool(tools, "df", f'echo "$LC_ALL" >{tools}/locale')
    run_script(["dash"], "0", tools=tools, LC_ALL="de_DE.UTF-8", LANG="de_DE.UTF-8")
    assert (tools / "locale").read_text() == "C\n"
