"""What `host_report.sh` prints on several systems.

DEBIAN was recorded on a virtual machine with Debian 12, by OpenSSH's sshd. No other system was at
hand: the others are NOT RECORDED FROM A REAL MACHINE, but written from the formats their manuals
document, with the traps each is known for.
"""

# ruff: noqa: E501 -- lines as the tools print them

from __future__ import annotations

DEBIAN = """\
metrics-pipeline: host report 1 begins
@proc_uptime
16053.71 26594.14
@meminfo
MemTotal:       24684096 kB
MemFree:        21880268 kB
MemAvailable:   23463440 kB
Buffers:           50784 kB
Cached:          1691908 kB
Shmem:             39732 kB
SReclaimable:     181176 kB
@millidegrees
@interfaces
eth0 2472115737 5477880
@proc_stat
cpu  453261 248 84030 2659414 3787 0 2470 570 0 0
cpu  453272 248 84039 2659434 3787 0 2470 570 0 0
@df
Filesystem     1024-blocks     Used Available Capacity Mounted on
/dev/vda         264212084 25399244  80991668      24% /
metrics-pipeline: host report 1 ends
"""

ALPINE = """\
metrics-pipeline: host report 1 begins
@proc_uptime
86400.55 330000.10
@meminfo
MemTotal:        1000000 kB
MemFree:          100000 kB
Buffers:           50000 kB
Cached:           300000 kB
SReclaimable:      70000 kB
Shmem:             20000 kB
@millidegrees
48312
-128000
127500
51000
@interfaces
eth0 18446744073709551615 10
wlan0 5 20
@proc_stat
cpu  1000 0 500 8000 500 0 0 0 900 0
cpu  1030 0 510 8050 510 0 0 0 999 0
@df
Filesystem           1024-blocks    Used Available Capacity Mounted on
/dev/mmcblk0p2         7000000   1400000   5600000  20% /
/dev/mapper/a-volume-with-a-name-that-does-not-fit
                       1000      900        100  90% /srv/data and more
metrics-pipeline: host report 1 ends
"""
"""Linux before 3.14 (no MemAvailable), guests' time, open sensor inputs, a df that wraps lines."""

FREEBSD = """\
metrics-pipeline: host report 1 begins
@etime
12-03:04:05
@vm_stats
hw.pagesize: 4096
vm.stats.vm.v_page_count: 1000000
vm.stats.vm.v_free_count: 100000
vm.stats.vm.v_inactive_count: 200000
vm.stats.vm.v_cache_count: 0
kstat.zfs.misc.arcstats.size: 409600000
@degrees
hw.acpi.thermal.tz0.temperature: 27.9C
dev.cpu.1.temperature: 53.0C
dev.cpu.0.temperature: 51.0C
@netstat
Name    Mtu Network       Address              Ipkts Ierrs Idrop     Ibytes    Opkts Oerrs     Obytes  Coll
em0    1500 <Link#1>      00:0c:29:ab:cd:ef  1000000     0     0 5000000000   900000     0 3000000000     0
em0       - 192.168.1.0/2 192.168.1.5         999999     -     - 4999999999   899999     -  299999999     -
em1*   1500 <Link#2>      00:0c:29:ab:cd:f0        7     0     0        777        7     0        777     0
igb0   1500 <Link#3>      00:0c:29:ab:cd:f1       10     0     0          5       10     0          7     0
lo0   16384 <Link#4>      lo0                    500     0     0      60000      500     0      60000     0
lo0       - 127.0.0.0/8   127.0.0.1              500     -     -      60000      500     -      60000     -
lagg0  1500 <Link#5>      00:0c:29:ab:cd:ef  1000000     0     0 5000000000   900000     0 3000000000     0
bridge 1500 <Link#6>      02:0c:29:ab:cd:aa        1     0     0       9999        1     0       9999     0
@cp_time
kern.cp_time: 1000 100 500 50 8350
kern.cp_time: 1020 100 510 50 8420
@df
Filesystem         1024-blocks     Used    Avail Capacity  Mounted on
zroot/ROOT/default    50000000 10000000 40000000    20%    /
devfs                        1        1        0   100%    /dev
zroot/usr/home        45000000  5000000 40000000    11%    /usr/home
/dev/iso9660/DVD        900000   900000        0   100%    /mnt/dvd
/dev/ada1p1            1000000   900000   -80000   110%    /full beyond its reserve
procfs                       4        4        0   100%    /proc
metrics-pipeline: host report 1 ends
"""

OPENBSD = """\
metrics-pipeline: host report 1 begins
@etime
    03:04:05
@top_memory
Memory: Real: 94M/526M act/tot Free: 1474M Cache: 291M Swap: 0K/1028M
@degrees
hw.sensors.cpu0.temp0=48.00 degC
hw.sensors.acpitz0.temp0=27.80 degC (zone temperature)
@netstat
Name    Mtu   Network     Address              Ibytes     Obytes
lo0     32768 <Link>                            12345      12345
lo0     32768 127/8       127.0.0.1             12345      12345
em0     1500  <Link>      52:54:00:12:34:56 123456789   87654321
em0     1500  10.0.2/24   10.0.2.15         123456789   87654321
enc0*   0     <Link>                                0          0
pflog0  33136 <Link>                                0     554433
vlan10  1500  <Link>      52:54:00:12:34:56      1111       2222
@cp_time
kern.cp_time=2034,0,1022,15,120,96809
kern.cp_time=2044,0,1032,15,120,96889
@df
Filesystem  1024-blocks       Used   Available Capacity Mounted on
/dev/sd0a       1010000     100000      910000    10%    /
/dev/sd0h       9000000    4500000     4500000    50%    /home
metrics-pipeline: host report 1 ends
"""

MACOS = """\
metrics-pipeline: host report 1 begins
@etime
   02:03
@vm_stat
hw.memsize: 17179869184
Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               12345.
Pages active:                            300000.
Pages inactive:                          290000.
Pages wired down:                        150000.
Pages purgeable:                          20000.
"Translation faults":                 987654321.
File-backed pages:                       200000.
Anonymous pages:                         300000.
Pages stored in compressor:              100000.
Pages occupied by compressor:             50000.
@netstat
Name       Mtu   Network       Address            Ipkts Ierrs     Ibytes    Opkts Oerrs     Obytes  Coll
lo0        16384 <Link#1>                       5128706     0 1575192126  5128706     0 1575192126     0
lo0        16384 127           127.0.0.1       5128706     - 1575192126  5128706     - 1575192126     -
gif0*      1280  <Link#2>                             0     0          0        0     0          0     0
en5        1500  <Link#8>    a4:83:e7:1c:2b:04   290197     0  987654321   324460     0  123456789     0
en5        1500  192.168.1     192.168.1.109     290197     -  987654321   324460     -  123456789     -
awdl0      1484  <Link#9>    02:11:22:33:44:55        9     0        999        9     0        999     0
bridge0    1500  <Link#10>   a6:83:e7:1c:2b:04        9     0        999        9     0        999     0
utun0      1380  <Link#11>                           50     0       7777       50     0       7777     0
@top_cpu
CPU usage: 50.0% user, 25.0% sys, 25.0% idle
CPU usage: 3.44% user, 3.81% sys, 92.75% idle
@df
Filesystem     1024-blocks      Used Available Capacity  Mounted on
/dev/disk3s1s1   239362496  10000000  30000000    25%    /
devfs                  200       200         0   100%    /dev
/dev/disk3s6     239362496   8000000   2000000    80%    /System/Volumes/VM
/dev/disk3s5     239362496 120000000  80000000    60%    /System/Volumes/Data
map auto_home            0         0         0   100%    /System/Volumes/Data/home
/dev/disk4s1        300000    300000         0   100%    /Volumes/An Installer
metrics-pipeline: host report 1 ends
"""
