"""What SNMP objects are called on the wire: OIDs by MIB, their units, and the codes in them.

A column is named without its index, a scalar with its `.0`. Where each fact is from stands at its
group; names such as cisco-c3750 are recordings of `snmpsim-data` that taught or confirmed it (those
used by the tests are under metrics_pipeline_tests/recordings/snmp). The formulas are in
`snmp_utilization` and `snmp_readings`.
"""

from __future__ import annotations

from metrics_pipeline.sources.snmp_session import Oid

# SNMPv2-MIB (RFC 3418), IF-MIB (RFC 2863), ENTITY-MIB (RFC 6933): what a device is, what changed.
SYS_OBJECT_ID: Oid = "1.3.6.1.2.1.1.2.0"
"""Who made it; decides which tables are asked."""
SYS_UPTIME: Oid = "1.3.6.1.2.1.1.3.0"
"""Hundredths of a second since the agent started, 32 bit: back to 0 after 497 days."""
IF_NUMBER: Oid = "1.3.6.1.2.1.2.1.0"
"""How many rows ifTable has."""
ENT_LAST_CHANGE_TIME: Oid = "1.3.6.1.2.1.47.1.4.1.0"
"""sysUpTime when a physical entity (a sensor, a card) last came or went."""

# HOST-RESOURCES-MIB (RFC 2790), SNMP-FRAMEWORK-MIB (RFC 3411): better clocks than sysUpTime.
HR_SYSTEM_UPTIME: Oid = "1.3.6.1.2.1.25.1.1.0"
"""Hundredths of a second since the host started, 32 bit; INTEGER instead of TimeTicks on AIX."""
SNMP_ENGINE_TIME: Oid = "1.3.6.1.6.3.10.2.1.3.0"
"""Seconds since the SNMP engine started, 31 bit (68 years)."""
CLOCKS = {SYS_UPTIME: 100, HR_SYSTEM_UPTIME: 100, SNMP_ENGINE_TIME: 1}
"""How many of its ticks make a second."""
TICKS_WRAP = 2**32

# HOST-RESOURCES-MIB (RFC 2790): hrProcessorTable and hrStorageTable.
HR_PROCESSOR_LOAD: Oid = "1.3.6.1.2.1.25.3.3.1.2"
"""Percent of the last minute that one processor was busy."""
HR_STORAGE_TYPE: Oid = "1.3.6.1.2.1.25.2.3.1.2"
HR_STORAGE_DESCR: Oid = "1.3.6.1.2.1.25.2.3.1.3"
HR_STORAGE_UNITS: Oid = "1.3.6.1.2.1.25.2.3.1.4"
"""Bytes in one allocation unit of this row."""
HR_STORAGE_SIZE: Oid = "1.3.6.1.2.1.25.2.3.1.5"
HR_STORAGE_USED: Oid = "1.3.6.1.2.1.25.2.3.1.6"
"""In units. Integer32 by the MIB; agents put 32 unsigned bits in it, so above 2^31 it is < 0."""
STORAGE_RAM: Oid = "1.3.6.1.2.1.25.2.1.2"
STORAGE_FIXED_DISK: Oid = "1.3.6.1.2.1.25.2.1.4"
STORAGE_FLASH: Oid = "1.3.6.1.2.1.25.2.1.9"
"""Where a device without disks (Arista EOS, Junos 16) has its file system."""
CACHE_NAMES = frozenset(
    {"memory buffers", "memory buffer", "cached memory", "ram (buffers)", "ram (cache)"}
)
"""hrStorageDescr, in lower case, of what counts as used in the RAM row but can be had any time.

By net-snmp (type Other) and Arista EOS (type RAM). Not `Packet Buffers`, as on Palo Alto.
"""
PSEUDO_FILE_SYSTEMS = (
    r"^/(proc|sys|run|snap)(/|$)|^/dev(/(shm|pts|mqueue|hugepages))?$"  # mount points of Linux
    r"|^(devfs|procfs|junosprocfs|tmpfs|devtmpfs)\b"  # Junos: "devfs: dev file system, mounted on"
    r"|^/dev/md\d+(\.uzip)?, mounted on"  # Junos: memory disks with the packages, always full
    r"|mounted on: /(\.mount/)?packages/"  # Junos: the same again
)
"""hrStorageDescr, dskPath or dskDevice of what is no real file system."""

# UCD-SNMP-MIB (net-snmp). Memory in kB; the counters in ticks, summed over all processors.
UCD_MEM_TOTAL: Oid = "1.3.6.1.4.1.2021.4.5.0"
UCD_MEM_AVAILABLE: Oid = "1.3.6.1.4.1.2021.4.6.0"
"""memAvailReal: free memory, buffers and cache not included."""
UCD_MEM_BUFFER: Oid = "1.3.6.1.4.1.2021.4.14.0"
UCD_MEM_CACHED: Oid = "1.3.6.1.4.1.2021.4.15.0"
UCD_MEM_SYS_AVAILABLE: Oid = "1.3.6.1.4.1.2021.4.27.0"
"""memSysAvail of net-snmp 5.9: MemAvailable of /proc/meminfo."""
UCD_CPU_IDLE: Oid = "1.3.6.1.4.1.2021.11.11.0"
"""Percent of the last minute, whole numbers."""
UCD_CPU_RAW_USER: Oid = "1.3.6.1.4.1.2021.11.50.0"
UCD_CPU_RAW_NICE: Oid = "1.3.6.1.4.1.2021.11.51.0"
UCD_CPU_RAW_SYSTEM: Oid = "1.3.6.1.4.1.2021.11.52.0"
UCD_CPU_RAW_IDLE: Oid = "1.3.6.1.4.1.2021.11.53.0"
UCD_CPU_RAW_WAIT: Oid = "1.3.6.1.4.1.2021.11.54.0"
UCD_CPU_RAW_KERNEL: Oid = "1.3.6.1.4.1.2021.11.55.0"
"""0 on newer agents. Where it counts, System = Kernel + Interrupt + SoftIRQ (linux/unknown-007:
1162766528 + 208536 + 20157476 = 1183132540), or System = Wait + Kernel (says the MIB)."""
UCD_CPU_RAW_INTERRUPT: Oid = "1.3.6.1.4.1.2021.11.56.0"
UCD_CPU_RAW_SOFT_IRQ: Oid = "1.3.6.1.4.1.2021.11.61.0"
"""Not within System where Kernel is 0 (linux/slackware: all eight add up to 2 processors times
hrSystemUptime within 0.003 %; without these two, 0.03 %)."""
UCD_CPU_RAW_STEAL: Oid = "1.3.6.1.4.1.2021.11.64.0"
DSK_PATH: Oid = "1.3.6.1.4.1.2021.9.1.2"
DSK_DEVICE: Oid = "1.3.6.1.4.1.2021.9.1.3"
DSK_TOTAL: Oid = "1.3.6.1.4.1.2021.9.1.6"
DSK_AVAILABLE: Oid = "1.3.6.1.4.1.2021.9.1.7"
DSK_USED: Oid = "1.3.6.1.4.1.2021.9.1.8"
"""The three in kB; they stop at 2147483647 (2 TB), which then says nothing."""
DSK_PERCENT: Oid = "1.3.6.1.4.1.2021.9.1.9"
"""used / (used + available), computed by the agent from what did not fit above."""
DSK_TOTAL_LOW: Oid = "1.3.6.1.4.1.2021.9.1.11"
DSK_TOTAL_HIGH: Oid = "1.3.6.1.4.1.2021.9.1.12"
DSK_USED_LOW: Oid = "1.3.6.1.4.1.2021.9.1.15"
DSK_USED_HIGH: Oid = "1.3.6.1.4.1.2021.9.1.16"
"""kB in two halves of 32 bits; net-snmp 5.5 and later."""
LATCHED = 2**31 - 1

# LM-SENSORS-MIB (net-snmp).
LM_TEMPERATURE: Oid = "1.3.6.1.4.1.2021.13.16.2.1.3"
"""Thousandths of a degree. Gauge32, in which a negative value is above 2^31."""

# ENTITY-SENSOR-MIB (RFC 3433) and CISCO-ENTITY-SENSOR-MIB, whose columns mean the same.
SENSOR_TYPE = 1
SENSOR_SCALE = 2
"""9 is 1, 8 is 10^-3, 10 is 10^3."""
SENSOR_PRECISION = 3
"""Decimal places of the value. cisco-n5000 says milli with none: 52394 is 52.394 degrees."""
SENSOR_VALUE = 4
SENSOR_STATUS = 5
ENTITY_SENSOR: Oid = "1.3.6.1.2.1.99.1.1.1"
CISCO_ENTITY_SENSOR: Oid = "1.3.6.1.4.1.9.9.91.1.1.1.1"
"""Confirmed: cisco-c3750 1019 is type 8, scale 9, precision 1, value 419: 41.9 degrees."""
SENSOR_SCALES = range(1, 18)
SENSOR_PRECISIONS = range(-8, 10)
SENSOR_CELSIUS = 8
SENSOR_OK = 1

# IF-MIB (RFC 2863). Counters in octets.
IF_DESCR: Oid = "1.3.6.1.2.1.2.2.1.2"
IF_TYPE: Oid = "1.3.6.1.2.1.2.2.1.3"
IF_SPEED: Oid = "1.3.6.1.2.1.2.2.1.5"
"""bit/s; 4294967295 when it is more."""
IF_OPER_STATUS: Oid = "1.3.6.1.2.1.2.2.1.8"
IF_IN_OCTETS: Oid = "1.3.6.1.2.1.2.2.1.10"
IF_OUT_OCTETS: Oid = "1.3.6.1.2.1.2.2.1.16"
IF_NAME: Oid = "1.3.6.1.2.1.31.1.1.1.1"
"""Short, as on the device's own command line: `Gi1/0/1` where ifDescr is GigabitEthernet1/0/1."""
IF_HC_IN_OCTETS: Oid = "1.3.6.1.2.1.31.1.1.1.6"
IF_HC_OUT_OCTETS: Oid = "1.3.6.1.2.1.31.1.1.1.10"
IF_HIGH_SPEED: Oid = "1.3.6.1.2.1.31.1.1.1.15"
"""Mbit/s."""
IF_UP = 1
_ETHERNET = {6, 7, 26, 62, 69, 117}
_RADIO = {71, 157, 188, 243, 244}  # Wi-Fi, proprietary, radioMAC, mobile broadband
_OTHER_NETWORKS = {8, 9, 11, 15, 56, 199}  # token bus, token ring, FDDI, Fibre Channel, InfiniBand
_LINES = {18, 19, 22, 30, 37, 39, 45, 94, 95, 96, 97, 127, 168, 169, 230, 238, 250, 251}
PHYSICAL_TYPES = frozenset(_ETHERNET | _RADIO | _OTHER_NETWORKS | _LINES)
"""ifType (IANAifType-MIB) of what has a plug or an antenna; the lines are E1/T1, E3/T3, serial,
ATM, SONET, DSL, PON and cable. Aggregates (161), VLANs (53, 135, 136), tunnels (131),
bridges (209) and loopbacks (24) count bytes that a physical interface counts as well."""
VIRTUAL_NAMES = (
    r"^(lo|bond|team|br|virbr|docker|veth|vnet|tap|tun|dummy|ifb|cali|cni|flannel|lagg|bridge|wg)"
    r"[-\d.]*([-_].*|[0-9a-f]{6,})?$"  # Linux and BSD give all of these the type of Ethernet
    r"|^[a-z]\w*\.\d+$"  # eth0.100: a VLAN (bmc/hp-onboard-administrator)
    r"|-\d{4}$"  # Windows: filter drivers, "…-WFP LightWeight Filter-0000"
)
"""ifDescr of what says it is Ethernet and is not: linux/unknown-003's bond0 has received exactly
what eth0 and eth1 have, 110352149656 octets."""
NARROW_COUNTER_LIMIT_BITS_PER_SECOND = 2**32 * 8 / 300
"""114.5 Mbit/s: a faster interface can wrap a 32-bit counter of octets unseen in 300 s."""

# CISCO-PROCESS-MIB, CISCO-MEMORY-POOL-MIB, CISCO-ENHANCED-MEMPOOL-MIB, CISCO-ENVMON-MIB.
CPM_CPU_5MIN_REV: Oid = "1.3.6.1.4.1.9.9.109.1.1.1.1.8"
"""Percent, one row a processor. Confirmed: equals column 5 in cisco-c3750, c3560, unknown-01."""
CPM_CPU_5MIN: Oid = "1.3.6.1.4.1.9.9.109.1.1.1.1.5"
"""The same on IOS before 12.0(3)T, which has no other (cisco-unmarked-0)."""
CPM_MEMORY_USED: Oid = "1.3.6.1.4.1.9.9.109.1.1.1.1.12"
CPM_MEMORY_FREE: Oid = "1.3.6.1.4.1.9.9.109.1.1.1.1.13"
"""kB. All that NX-OS has of memory (cisco-n5000: 2429964 + 5823892 kB are its 8 GB)."""
MEMORY_POOL_VALID: Oid = "1.3.6.1.4.1.9.9.48.1.1.1.4"
MEMORY_POOL_USED: Oid = "1.3.6.1.4.1.9.9.48.1.1.1.5"
MEMORY_POOL_FREE: Oid = "1.3.6.1.4.1.9.9.48.1.1.1.6"
"""Bytes, 32 bit. cisco-c3750 has 80 MB of processor memory and 13 MB of I/O memory in its 128."""
ENHANCED_POOL_USED: Oid = "1.3.6.1.4.1.9.9.221.1.1.1.1.7"
ENHANCED_POOL_FREE: Oid = "1.3.6.1.4.1.9.9.221.1.1.1.1.8"
ENHANCED_POOL_HC_USED: Oid = "1.3.6.1.4.1.9.9.221.1.1.1.1.18"
ENHANCED_POOL_HC_FREE: Oid = "1.3.6.1.4.1.9.9.221.1.1.1.1.20"
"""Bytes; the HC columns are 64 bit. On ASA and IOS XR."""
GAUGE_LATCHED = 2**32 - 1
ENVMON_TEMPERATURE: Oid = "1.3.6.1.4.1.9.9.13.1.3.1.3"
"""Degrees Celsius. Confirmed: cisco-c3560 61 at a threshold of 66, cisco-unknown-01 29 to 48."""
ENVMON_STATE: Oid = "1.3.6.1.4.1.9.9.13.1.3.1.6"
ENVMON_ABSENT = frozenset({5, 6})
"""notPresent, notFunctioning; 1 to 4 are normal, warning, critical, shutdown."""

# JUNIPER-MIB, jnxOperatingTable.
JNX_DESCR: Oid = "1.3.6.1.4.1.2636.3.1.13.1.5"
JNX_TEMPERATURE: Oid = "1.3.6.1.4.1.2636.3.1.13.1.7"
"""Degrees Celsius; 0 is no sensor."""
JNX_CPU: Oid = "1.3.6.1.4.1.2636.3.1.13.1.8"
JNX_BUFFER: Oid = "1.3.6.1.4.1.2636.3.1.13.1.11"
"""Both percent; 0 where the row has none."""
JNX_DRAM_SIZE: Oid = "1.3.6.1.4.1.2636.3.1.13.1.10"
"""Bytes, deprecated: 0 in every row of the four mx960."""
JNX_MEMORY: Oid = "1.3.6.1.4.1.2636.3.1.13.1.15"
"""MB; routing engines and line cards have some, and only they have a processor."""

# sysObjectID's beginnings (IANA private enterprise numbers).
CISCO = "1.3.6.1.4.1.9."
JUNIPER = "1.3.6.1.4.1.2636."
NET_SNMP = "1.3.6.1.4.1.8072."
UCD = "1.3.6.1.4.1.2021."
