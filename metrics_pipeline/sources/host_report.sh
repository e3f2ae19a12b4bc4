# What a host says of itself, in the words of its own tools; sources/host_report.py reads it.
#
#   /bin/sh host_report.sh [SECONDS [ROOT]]
#
# SECONDS lie between two samples of the processor's ticks; 0 takes one sample. ROOT is a folder
# with another proc and sys. Any POSIX shell on Linux, FreeBSD, OpenBSD or macOS; nothing is
# changed, and no privilege is needed. Each section begins with a line @NAME. What a host has not
# is an empty section or none. The file systems come last: only they can hang on a dying disk.

window=${1:-0.5}
root=${2:-}
LC_ALL=C
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

twice() {
    "$@"
    if [ "$window" != 0 ]; then
        # Where sleep knows whole seconds only, it says so at once.
        sleep "$window" || sleep 1
        "$@"
    fi
}

first_line_of() {
    if read -r line <"$1"; then printf '%s\n' "$line"; fi
}

linux_ticks() {
    first_line_of "$root/proc/stat"
}

linux_memory() {
    while read -r line; do
        case $line in
        MemTotal:* | MemFree:* | MemAvailable:* | Buffers:* | Cached:* | SReclaimable:* | Shmem:*)
            printf '%s\n' "$line"
            ;;
        esac
    done <"$root/proc/meminfo"
}

linux_temperatures() {
    for file in "$root"/sys/class/thermal/thermal_zone*/temp \
        "$root"/sys/class/hwmon/hwmon*/temp*_input \
        "$root"/sys/class/hwmon/hwmon*/device/temp*_input; do
        fault=0
        if [ -r "${file%_input}_fault" ]; then read -r fault <"${file%_input}_fault"; fi
        if [ "$fault" = 0 ] && [ -r "$file" ]; then first_line_of "$file"; fi
    done
}

# An interface is physical if a device is behind it. Not counted twice: what passes through one
# whose master is physical as well (a virtual function), and the port a switch chip hangs on (DSA).
linux_interfaces() {
    for folder in "$root"/sys/class/net/*; do
        if [ ! -e "$folder/device" ] || [ -e "$folder/master/device" ] || [ -d "$folder/dsa" ]; then
            continue
        fi
        state=down
        read -r state <"$folder/operstate"
        # Drivers that cannot tell say unknown.
        case $state in up | unknown) ;; *) continue ;; esac
        if read -r received <"$folder/statistics/rx_bytes" &&
            read -r sent <"$folder/statistics/tx_bytes"; then
            printf '%s %s %s\n' "${folder##*/}" "$received" "$sent"
        fi
    done
}

# Only what is named is asked: df would hang on a network file system whose server is gone. No
# images that are always full (squashfs, iso9660, erofs), nothing in memory, no overlay.
linux_file_systems() {
    seen=' '
    set --
    while read -r device folder type rest; do
        case $type in
        ext[234] | xfs | btrfs | zfs | bcachefs | f2fs | jfs | nilfs2 | reiserfs) ;;
        jffs2 | ubifs | yaffs2 | vfat | exfat | ntfs | ntfs3 | fuseblk | hfsplus | ufs) ;;
        *) continue ;;
        esac
        case $seen in *" $device "*) continue ;; esac
        seen="$seen$device "
        # A space in a name is \040 here.
        case $folder in *\\*) folder=$(printf '%b' "$folder") ;; esac
        set -- "$@" "$folder"
    done <"$root/proc/mounts"
    if [ $# -gt 0 ]; then df -P -k "$@"; fi
}

linux() {
    echo @proc_uptime
    first_line_of "$root/proc/uptime"
    echo @meminfo
    linux_memory
    echo @millidegrees
    linux_temperatures
    echo @interfaces
    linux_interfaces
    echo @proc_stat
    twice linux_ticks
    echo @df
    linux_file_systems
}

freebsd() {
    echo @vm_stats
    sysctl hw.pagesize vm.stats.vm.v_page_count vm.stats.vm.v_free_count \
        vm.stats.vm.v_inactive_count vm.stats.vm.v_cache_count kstat.zfs.misc.arcstats.size
    echo @degrees
    sysctl hw.acpi.thermal dev.cpu | grep temperature
    echo @netstat
    netstat -ibnW # without W, names are cut at five characters
    echo @cp_time
    twice sysctl kern.cp_time
}

openbsd() {
    echo @top_memory
    top -b -d 1 1 | grep '^Memory:'
    echo @degrees
    sysctl hw.sensors | grep degC
    echo @netstat
    netstat -ibn
    echo @cp_time
    twice sysctl kern.cp_time
}

macos() {
    echo @vm_stat
    sysctl hw.memsize
    vm_stat
    echo @netstat
    netstat -ibn
    # No counters of ticks here. The first sample of top is of the time since the start.
    echo @top_cpu
    top -l 2 -n 0 -s 1 | grep 'CPU usage'
}

report() {
    echo 'metrics-pipeline: host report 1 begins'
    if [ -r "$root/proc/stat" ] && [ -d "$root/sys/class/net" ]; then
        linux
    else
        echo @etime
        ps -o etime= -p 1
        case $(uname -s) in
        OpenBSD) openbsd ;;
        Darwin) macos ;;
        *) freebsd ;;
        esac
        echo @df
        df -P -k -l
    fi
    echo 'metrics-pipeline: host report 1 ends'
}

# The shell may be reading this script from the same input.
report </dev/null 2>/dev/null
exit 0
