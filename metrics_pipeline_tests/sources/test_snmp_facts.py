"""Values are right for real gear: recorded walks against figures worked out by hand.

Each figure of RECORDED is arithmetic on numbers read off the walk by eye, in the order of its
rows; nothing of it was computed by the code under test.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DISK_USAGE,
    HOST_METRICS,
    MEMORY_UTILIZATION,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    TEMPERATURE,
    UPTIME,
    Miss,
)
from metrics_pipeline.sources import snmp_facts as facts
from metrics_pipeline.sources.snmp_memory import DeviceMemory
from metrics_pipeline.sources.snmp_poll import Polled, poll_values
from metrics_pipeline.sources.snmp_session import Oid, SnmpValue
from metrics_pipeline_tests.snmp_recordings import RECORDINGS, RecordedSession, recorded


@dataclass(frozen=True)
class Expected:
    """What a device's walk says; a metric that is not named is unsupported by it."""

    uptime: float
    cpu: float | None = None
    memory: float | None = None
    disk: float | None = None
    temperature: float | None = None
    receive: int | None = None
    transmit: int | None = None
    misses: dict[str, Miss] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        named = {
            UPTIME: self.uptime,
            CPU_UTILIZATION: self.cpu,
            MEMORY_UTILIZATION: self.memory,
            DISK_USAGE: self.disk,
            TEMPERATURE: self.temperature,
            NETWORK_RECEIVE: self.receive,
            NETWORK_TRANSMIT: self.transmit,
        }
        return {metric: value for metric, value in named.items() if value is not None}


RECORDED = {
    "aix-power": Expected(
        uptime=423348900 / 100,  # hrSystemUptime, an INTEGER; sysUpTime is 4377 s
        # 32 rows of hrProcessorLoad: rows 1, 5, 9 and 25 are 3, 1, 2 and 9, the others 0
        cpu=(3 + 1 + 2 + 9) / 32,
        memory=100 * 809447 / 8126464,  # "System RAM"
        disk=100 * 126661 / 131072,  # /dev/hd9var; next is /dev/hd2 with 524060 of 655360
        # no traffic: ent0 to en3 are up at 1 Gbit/s with 32-bit counters
    ),
    "apc-pdu-8641": Expected(
        uptime=165528150 / 100,
        receive=3050213,  # vmac0 at 100 Mbit/s: 2^32 octets take 343 s
        transmit=3465069,
    ),
    "arista-7150s": Expected(
        uptime=1692193100 / 100,  # hrSystemUptime; snmpEngineTime is 16921834
        cpu=(13 + 12 + 13) / 3,
        # RAM 3132868 of 3956120, of which RAM (Buffers) 171908 and RAM (Cache) 2069904
        memory=100 * (3132868 - 171908 - 2069904) / 3956120,
        disk=100 * 306534 / 386808,  # Flash; there is no fixed disk
        temperature=287 / 10,  # sensor 100352201; next is 100006001 with 282
        # Ethernet1 to 52 that are up; not Port-Channel1, Vlan40, 41, 80, Loopback0, 1
        receive=2993597393618
        + 5325394728
        + 946
        + 4127192446
        + 64
        + 37014769
        + 0
        + 269993
        + 0
        + 3741386099
        + 38463568
        + 31233493
        + 0
        + 0
        + 4585876949
        + 6074455156
        + 2740470796
        + 9162343655
        + 24292319254
        + 19292610285
        + 3164908243
        + 5277734526
        + 20213212822
        + 55907468826
        + 42495630
        + 0
        + 4918429
        + 67204
        + 0
        + 33064769
        + 167522
        + 1901515835
        + 1968222687
        + 64554657
        + 0
        + 61706519050
        + 0,
        transmit=204300341622
        + 61124832077
        + 2477670120
        + 25727797505
        + 2477697956
        + 2579060692
        + 2478289300
        + 2479524921
        + 2478292416
        + 16695751258
        + 488252037
        + 2558822276
        + 2478292416
        + 1504236922
        + 45092382819
        + 88784685183
        + 2422323623
        + 88864789477
        + 60099390439
        + 23556819134
        + 22292305413
        + 44066296560
        + 363916811765
        + 1005698164340
        + 176260585
        + 2478292416
        + 569764811
        + 284243275
        + 284265100
        + 1539365244
        + 387780233
        + 9536310032
        + 10331973537
        + 3192238901915
        + 1171782680301
        + 3192238914467,
    ),
    "cisco-6500": Expected(
        uptime=18949190,  # snmpEngineTime; sysUpTime is 18948402.15 s
        cpu=(71 + 21 + 0 + 0 + 0 + 6) / 6,
        # Processor 91564264 used, 303425384 free; I/O 10418768 used, 56690096 free
        memory=100 * (91564264 + 10418768) / (91564264 + 10418768 + 303425384 + 56690096),
        temperature=48,  # "module 3 outlet temperature", state 1
    ),
    "cisco-c3560": Expected(
        uptime=4924630,
        cpu=28,
        # Processor, I/O, Driver text
        memory=100
        * (22188980 + 3640984 + 40)
        / (22188980 + 3640984 + 40 + 53499780 + 4747624 + 1048536),
        temperature=61,  # "SW#1, Sensor#1, YELLOW", state 2: warning
        receive=1050166720685 + 18783802582465 + 1179783651924 + 405667120638,  # Gi0/49 to 52
        transmit=6575276732753 + 2599249566949 + 11956652008927 + 323747877668,
    ),
    "cisco-c3750": Expected(
        uptime=38969873,
        cpu=29,
        memory=100
        * (33385580 + 8906084 + 40)
        / (33385580 + 8906084 + 40 + 46331200 + 3676828 + 1048536),
        temperature=579 / 10,  # 1025: type 8, scale 9, precision 1; 1019 is 419
        # Gi1/0/1, 6, 7, 9, 11, 12; not Vlan1 with 7406579592 and Vlan100 with 16977646469
        receive=4377757100764
        + 356892003718487
        + 45686441433631
        + 257487775630445
        + 113306510457400
        + 272382483438207,
        transmit=37940036623733
        + 67363834760433
        + 17653811903968
        + 174981793583560
        + 24928835414591
        + 719931531439856,
    ),
    "cisco-n5000": Expected(
        uptime=22274789,
        cpu=16,
        memory=100 * 2429964 / (2429964 + 5823892),  # cpmCPUMemoryUsed and Free, kB
        temperature=75937 / 1000,  # 25885: scale 8 (milli), precision 0
        # mgmt0 and 14 of Ethernet1/x; not port-channel1 to 51, which count the same again
        receive=6198273415
        + 85856583072626
        + 26450328562577
        + 20302524951639
        + 156990002747537
        + 10433176066695
        + 2179314034692
        + 306109031382
        + 1086783927355
        + 56931847230636
        + 98928116568663
        + 49630982234630
        + 21929029633069
        + 198233385859256
        + 235017914988529,
        transmit=6191982191
        + 16028212380268
        + 136817846523039
        + 75378448977639
        + 21058080188378
        + 13456014895397
        + 4240265521700
        + 1286284238453
        + 90041301910650
        + 92852163767197
        + 136957485549367
        + 149405600165551
        + 108910581560179
        + 97227791667030
        + 56618950464543,
    ),
    "cisco-old-ios": Expected(
        uptime=2504220,
        cpu=3,  # cpmCPUTotal5min; there is no 5minRev
        memory=100 * (8335368 + 783972) / (8335368 + 783972 + 51069488 + 7604636),
        # no traffic: Gi0/1 is up at 1 Gbit/s with a 32-bit counter
    ),
    "hpe-procurve-6120xg": Expected(
        uptime=31107100,
        # ports 1 to 5, 8 to 13, 15 to 17, and the out-of-band port 4178; not lo0 with 144454933
        receive=1618982453357
        + 776296609070
        + 858225567838
        + 37031679455988
        + 40599396932806
        + 266770553120
        + 8254367860617
        + 16871162801793
        + 3977808696480
        + 1233220528107
        + 1456413211003
        + 1043244248884
        + 919337040173
        + 140460455328463
        + 5020630685,
        transmit=22559982396398
        + 21775438113026
        + 21489821273341
        + 35955133735798
        + 20768872495270
        + 21369763424849
        + 28739714913068
        + 61455475848538
        + 63282733106752
        + 18002199540951
        + 2698212602570
        + 21766823311393
        + 21556200033693
        + 111001083834723
        + 1869582405,
    ),
    "isilon-onefs": Expected(
        uptime=648980299 / 100,
        cpu=2,  # one row of four has a value
        disk=46,  # dskPercent of /ifs: hrStorage says 1354557667 of 186914868, dskAvail > dskTotal
        # bxe0 and bxe1 say they are aggregates (161), lagg1 that it is Ethernet: igb0 is left
        receive=1338058221,
        transmit=2499810,
        # memory: 50223940 - 1401300 - 12582208 - 1614478456 < 0, and hrStorage has no used cache
        misses={MEMORY_UTILIZATION: Miss.PARSE},
    ),
    "juniper-mx960-12": Expected(
        uptime=8649886,  # snmpEngineTime; hrSystemUptime is 8649880.96 s
        cpu=(13 + 19 + 7 + 29 + 0) / 5,  # FPC 0, 1, 2; routing engines 0, 1
        memory=(14 + 14 + 13 + 8 + 8) / 5,
        disk=100 * 3039012 / 9326398,  # /var; /config has 33 of 193035; md0 to md8 are always full
        temperature=35,  # PEM 0 and PEM 2
        # the ge- and xe- that are up; not lo0 with 1113304, ae1, ae2
        receive=6250110845486
        + 322023034485
        + 234016643849
        + 7026152209450
        + 241912951722
        + 9109621939317
        + 4511269441052
        + 2453596072805
        + 236694654870235
        + 41551708
        + 2369169577928313
        + 1240477995955
        + 4018343469971
        + 11606497374115
        + 27307212126086
        + 226481245029133
        + 254949519793194
        + 477071264698534
        + 2840300240258
        + 592275501215623
        + 18182753254826
        + 320,
        transmit=29716439959981
        + 8541400282985
        + 39895741508
        + 40931367459540
        + 6548110302473
        + 22714776077796
        + 15218704948578
        + 8465080508525
        + 1023517608701555
        + 2765614158746394
        + 475434684698077
        + 10582245218137
        + 13397358574805
        + 22197752509337
        + 2448602289251
        + 126020317018069
        + 126682266788993
        + 111922686429675
        + 2776945255812
        + 2180464124238709
        + 15148622310695
        + 2765833969621367
        + 2765762096033791,
    ),
    "linux-bonded": Expected(
        uptime=1759221659 / 100,  # hrSystemUptime: the agent is 9160142 s old
        cpu=100 - 98,
        memory=100 * (8374784 - 3383280 - 134884 - 4293676) / 8374784,
        disk=100 * 36340754 / 63788685,  # /; not /dev/shm, not the two network disks
        temperature=13000 / 1000,
        receive=9517030783 + 100835118873 + 348720181700 + 34000071392,  # eth0 to eth3
        transmit=250693331412 + 107129680619 + 498530942484 + 468,
    ),
    "linux-32bit": Expected(
        uptime=817725286 / 100,
        cpu=100 - 88,  # ssCpuIdle; hrProcessorLoad has four rows without a value
        memory=100 * (7275728 - 4166188 - 135472 - 510064) / 7275728,
        disk=100,  # /var/log: 388693 of 388693
        # no traffic: eth_1_0_0 and three more at 1 Gbit/s with 32-bit counters
    ),
    "linux-centos7": Expected(
        uptime=76280295 / 100,
        cpu=100 - 99,
        memory=100 * (3882052 - 2364036 - 1812 - 1211092) / 3882052,  # hrStorage would say 38.9
        disk=100 * 42402 / 259584,  # /boot; / has 426527 of 3929600
        temperature=100000 / 1000,
        receive=357853804
        + 115843333
        + 115833340
        + 115831130
        + 115892840
        + 115831700
        + 115831430
        + 115831070
        + 115831070
        + 115831430,  # ens32 to ens41
        transmit=52584392 + 12859 + 11160 + 11160 + 11180 + 11140 + 11160 + 11160 + 11118 + 11222,
    ),
    "linux-slackware": Expected(
        uptime=233512142 / 100,
        cpu=100 - 79,
        memory=100 * (1021976 - 63676 - 23936 - 207212) / 1021976,
        disk=100 * 90601816 / 96144541,  # /export
        receive=24167091249,  # eth0
        transmit=2448657392,
    ),
    "paloalto-pa-5000": Expected(
        uptime=680387958 / 100,
        cpu=(16 + 12) / 2,
        memory=100 * 2796052 / 4053068,  # "Slot-0 Management Memory"
        disk=100 * 3261068 / 3945072,  # root partition; log partition 124585096 of 207076296
        temperature=34,
        # mgmt, ethernet1/13, 19, 20; not ethernet1/13.4008 and its like, vlan.x, tunnel.x
        receive=9643701234 + 5482356348097 + 11203910871735 + 30294262085751,
        transmit=11227576295 + 6060869500276 + 30296571751166 + 11135587821781,
    ),
    "samsung-camera": Expected(
        uptime=17811354 / 100,
        cpu=8,
        memory=100 * (155788 - 74408 - 632 - 23572) / 155788,
        disk=100 * 22133 / 31729,  # /; /tmp has 106 of 19473
        receive=2276858858,
        transmit=43882588313,
    ),
    "windows-2003": Expected(
        uptime=865046546 / 100,
        cpu=0,
        memory=100 * 24452 / 32758,  # "Physical Memory"
        disk=100 * 1736055 / 13105015,  # C:; A: and D: have no size
        # no traffic: 1 Gbit/s with a 32-bit counter
    ),
    "windows-xp": Expected(
        uptime=23294484 / 100,  # hrSystemUptime: the agent is 828 s old
        cpu=0,
        memory=100 * 9686 / 15852,
        disk=100 * 1884128 / 1952447,  # C:; Z: has 20191655 of 21304198
        receive=911220674,  # wireless at 54 Mbit/s
        transmit=21194412,
    ),
}


def poll(session: RecordedSession, memory: DeviceMemory | None = None) -> Polled:
    """All host metrics of `session`."""
    return asyncio.run(poll_values(session, HOST_METRICS, memory or DeviceMemory()))


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_device_gives_what_its_walk_says(name: str) -> None:
    expected = RECORDED[name]
    polled = poll(recorded(name))
    assert polled.values == pytest.approx(expected.values(), rel=1e-12)
    missing = {m: Miss.UNSUPPORTED for m in HOST_METRICS if m not in expected.values()}
    assert polled.misses == {**missing, **expected.misses}


@pytest.mark.parametrize("name", RECORDED)
def test_known_instances_give_what_the_walk_gave(name: str) -> None:
    memory = DeviceMemory()
    first = poll(recorded(name), memory)
    again = poll(recorded(name), DeviceMemory.from_json(memory.to_json()))
    assert again == first


def test_every_recording_is_in_the_table() -> None:
    files = {path.stem for path in RECORDINGS.glob("*.snmprec")}
    assert files - {"juniper-mx960-16"} == set(RECORDED)


def test_junos_on_flash_gives_its_root_and_its_line_cards() -> None:
    polled = poll(recorded("juniper-mx960-16"))
    # FPC 0 to 3 and both routing engines; the root is flash, and mounted eight times over
    assert polled.values[CPU_UTILIZATION] == pytest.approx((18 + 20 + 23 + 26 + 18 + 2) / 6)
    assert polled.values[MEMORY_UTILIZATION] == pytest.approx((15 + 16 + 15 + 14 + 12 + 10) / 6)
    assert polled.values[DISK_USAGE] == pytest.approx(100 * 1552562 / 5538315)
    assert polled.values[TEMPERATURE] == 35  # PEM 3


# --- what the recordings have to say about single facts ---------------------------------------


def value_of(metric: str, variables: dict[Oid, SnmpValue]) -> float | Miss:
    """One metric of a device that has just these variables."""
    polled = asyncio.run(poll_values(RecordedSession(variables), [metric], DeviceMemory()))
    return polled.values.get(metric, polled.misses.get(metric, Miss.PARSE))


def test_the_bond_counts_what_its_ports_count() -> None:
    walk = recorded("linux-bonded").variables
    ports = [walk[f"{facts.IF_HC_IN_OCTETS}.{index}"] for index in (2, 3)]
    assert [walk[f"{facts.IF_HC_IN_OCTETS}.7"]] == [9517030783 + 100835118873]
    assert ports == [9517030783, 100835118873]


def test_kernel_ticks_are_within_system_ticks_on_an_old_agent() -> None:
    walk = recorded("linux-32bit").variables
    assert walk[facts.UCD_CPU_RAW_SYSTEM] == 1162766528 + 208536 + 20157476
    assert walk[facts.UCD_CPU_RAW_KERNEL] == 1162766528


def test_all_ticks_add_up_to_two_processors_and_the_uptime() -> None:
    walk = recorded("linux-slackware").variables
    ticks = [v for oid, v in walk.items() if oid.startswith("1.3.6.1.4.1.2021.11.5")]
    total = sum(t for t in [*ticks, walk[facts.UCD_CPU_RAW_SOFT_IRQ]] if isinstance(t, int))
    assert total == pytest.approx(2 * 233512142, rel=1e-4)


@pytest.mark.parametrize(
    ("scale", "precision", "value", "celsius"),
    [(9, 0, 40, 40), (9, 1, 419, 41.9), (8, 0, 52394, 52.394), (9, 0, -5, -5), (10, 3, 31, 31)],
)
def test_sensors_are_scaled_both_ways(
    scale: int, precision: int, value: int, celsius: float
) -> None:
    row = {1: 8, 2: scale, 3: precision, 4: value, 5: 1}
    sensors: dict[Oid, SnmpValue] = {f"{facts.ENTITY_SENSOR}.{c}.7": v for c, v in row.items()}
    assert value_of(TEMPERATURE, sensors) == pytest.approx(celsius)


def test_sensors_of_other_things_or_out_of_order_do_not_count() -> None:
    rows = {"1": (8, 9, 0, 90, 2), "2": (10, 9, 0, 4618, 1), "3": (8, 9, 0, 23, 1)}
    sensors: dict[Oid, SnmpValue] = {
        f"{facts.ENTITY_SENSOR}.{column}.{index}": value
        for index, row in rows.items()
        for column, value in enumerate(row, start=1)
    }
    assert value_of(TEMPERATURE, sensors) == 23


def test_a_negative_temperature_in_an_unsigned_gauge_is_negative() -> None:
    assert value_of(TEMPERATURE, {f"{facts.LM_TEMPERATURE}.1": 2**32 - 4500}) == -4.5


def test_an_absent_cisco_sensor_does_not_count() -> None:
    walk: dict[Oid, SnmpValue] = {facts.SYS_OBJECT_ID: "1.3.6.1.4.1.9.1.516"}
    for index, (celsius, state) in enumerate([(90, 5), (80, 6), (41, 1), (43, 2)]):
        walk[f"{facts.ENVMON_TEMPERATURE}.{index}"] = celsius
        walk[f"{facts.ENVMON_STATE}.{index}"] = state
    assert value_of(TEMPERATURE, walk) == 43


def disk(size: int, used: int) -> dict[Oid, SnmpValue]:
    return {
        f"{facts.HR_STORAGE_TYPE}.1": facts.STORAGE_FIXED_DISK,
        f"{facts.HR_STORAGE_DESCR}.1": b"/data",
        f"{facts.HR_STORAGE_SIZE}.1": size,
        f"{facts.HR_STORAGE_USED}.1": used,
    }


def test_a_disk_beyond_31_bits_is_read_without_a_sign() -> None:
    # 3,000,000,000 of 4,000,000,000 units, as a signed 32-bit INTEGER shows them
    assert value_of(DISK_USAGE, disk(4_000_000_000 - 2**32, 3_000_000_000 - 2**32)) == 75


def test_a_disk_with_more_used_than_there_is_is_no_number() -> None:
    assert value_of(DISK_USAGE, disk(186914868, 1354557667)) is Miss.PARSE


def ucd_disk(**cells: int) -> dict[Oid, SnmpValue]:
    table = "1.3.6.1.4.1.2021.9.1"
    columns = {"total": 6, "available": 7, "used": 8, "percent": 9, "total_low": 11}
    columns |= {"total_high": 12, "used_low": 15, "used_high": 16}
    values: dict[Oid, SnmpValue] = {f"{table}.{columns[k]}.1": v for k, v in cells.items()}
    return {f"{table}.2.1": b"/data", f"{table}.3.1": b"/dev/sda1", **values}


def test_ucd_disks_are_the_fallback() -> None:
    cells = ucd_disk(total=255154736, available=96830600, used=145363008, percent=60)
    assert value_of(DISK_USAGE, cells) == pytest.approx(100 * 145363008 / 255154736)


def test_a_latched_available_is_bogus_and_the_agents_percentage_is_taken() -> None:
    cells = ucd_disk(total=2147483647, available=2147483647, used=1200000000, percent=30)
    assert value_of(DISK_USAGE, cells) == 30


def test_a_large_ucd_disk_is_read_from_its_halves() -> None:
    wide = {"total_low": 0, "total_high": 4, "used_low": 0, "used_high": 1}
    cells = ucd_disk(total=2147483647, available=2147483647, used=2147483647, percent=25, **wide)
    assert value_of(DISK_USAGE, cells) == 25


def test_available_memory_of_a_new_agent_is_believed() -> None:
    walk: dict[Oid, SnmpValue] = {
        facts.UCD_MEM_TOTAL: 8_000_000,
        facts.UCD_MEM_AVAILABLE: 500_000,
        facts.UCD_MEM_BUFFER: 100_000,
        facts.UCD_MEM_CACHED: 4_000_000,
        facts.UCD_MEM_SYS_AVAILABLE: 6_000_000,
    }
    assert value_of(MEMORY_UTILIZATION, walk) == 25


def port(kind: int, status: int, octets: int, name: bytes = b"eth0") -> dict[Oid, SnmpValue]:
    return {
        f"{facts.IF_DESCR}.1": name,
        f"{facts.IF_TYPE}.1": kind,
        f"{facts.IF_OPER_STATUS}.1": status,
        f"{facts.IF_HC_IN_OCTETS}.1": octets,
    }


@pytest.mark.parametrize(
    "name",
    [
        b"bond0", b"br-0a1b2c3d4e5f", b"docker0", b"veth1a2b3c4", b"virbr0-nic", b"eth0.100",
        b"vnet12", b"lagg1", b"team0", b"tun0", b"docker_gwbridge", b"lo",
        b"vmxnet3 Ethernet Adapter-WFP LightWeight Filter-0000",
    ],
)  # fmt: skip
def test_what_counts_the_bytes_of_others_is_left_out(name: bytes) -> None:
    assert value_of(NETWORK_RECEIVE, port(6, 1, 1000, name)) is Miss.UNSUPPORTED


@pytest.mark.parametrize(
    "name",
    [b"eth0", b"ens32", b"enp3s0f1", b"GigabitEthernet1/0/1", b"ge-0/0/0", b"bxe0", b"wlan0",
     b"vmac0", b"br1x/0", b"ether1", b"port16", b"en2; Product: PCIe2 4-port 1GbE Adapter"],
)  # fmt: skip
def test_a_port_of_any_name_counts(name: bytes) -> None:
    assert value_of(NETWORK_RECEIVE, port(6, 1, 1000, name)) == 1000


@pytest.mark.parametrize(
    ("kind", "status"), [(6, 2), (24, 1), (53, 1), (131, 1), (135, 1), (161, 1)]
)
def test_what_is_down_or_not_physical_does_not_count(kind: int, status: int) -> None:
    assert value_of(NETWORK_RECEIVE, port(kind, status, 1000)) is Miss.UNSUPPORTED


@pytest.mark.parametrize(
    ("bits_per_second", "answer"),
    [(10_000_000, 7), (114_000_000, 7), (155_000_000, Miss.UNSUPPORTED), (0, Miss.UNSUPPORTED)],
)
def test_a_32_bit_counter_is_accepted_up_to_114_megabits(
    bits_per_second: int, answer: float | Miss
) -> None:
    walk = port(6, 1, 0) | {f"{facts.IF_SPEED}.1": bits_per_second, f"{facts.IF_IN_OCTETS}.1": 7}
    del walk[f"{facts.IF_HC_IN_OCTETS}.1"]
    assert value_of(NETWORK_RECEIVE, walk) == answer
