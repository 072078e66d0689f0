# shellcheck shell=bash
# shellcheck disable=SC2016,SC2034,SC2054,SC2154 # scripts for the guest; names shared between these files
# What is refused: a clear sentence, an exit status, and nothing changed. Sourced by run.

# refused STATUS PATTERN SCRIPT
refused() {
    local status=0
    shown "$3" || status=$?
    [ "$status" -eq "$1" ] || die "status $status, not $1: $3"
    said "$2"
    # One sentence on one line.
    [ "$(wc -l <"$scratch/said")" -eq 1 ] || die "more than a sentence: $3"
    grep -q '\.$' "$scratch/said" || die "not a sentence: $3"
}

unmount='umount /mnt/embar; while pidof embarfs >/dev/null; do usleep 10000; done'

# Where the device's first byte stands in the file behind it: a card keeps the namespace's own label
# and page maps before it.
device_at() {
    if [ "$vm_variant" = hmem ]; then
        vm_file=$scratch/node1.img
        vm_file_at=0
    else
        vm_file=$scratch/cxl.img
        vm_file_at=$(vm 'echo $(($(cat /sys/bus/dax/devices/dax0.0/resource) - $(cat /sys/bus/cxl/devices/region0/resource)))') ||
            die "no place of the device in its card"
    fi
}

scenario_refuse() {
    say "== refusals"
    refused 69 'held by process [0-9]+' 'mkdir -p /tmp/second; embarfs /tmp/second --cxl /dev/dax0.0'
    refused 1 'it is mounted at /mnt/embar' 'echo x | embar append /dev/dax0.0 topic0'
    refused 1 'held by process [0-9]+|it is mounted at /mnt/embar' 'embar pool erase /dev/dax0.0 --force'
    refused 66 'there is no device /dev/dax9.9' 'embarfs /tmp/second --cxl /dev/dax9.9'
    refused 77 'permission denied' "mkdir -p /tmp/own; chown user /tmp/own; su user -c 'embarfs /tmp/own --cxl /dev/dax0.0'"
    says 'you may not open /dev/dax0.0' "su user -c 'embar devices'"
    refused 64 'is not a dax device' 'embarfs /tmp/second --cxl /dev/null'
    refused 64 'leave --size out' 'embarfs /tmp/second --cxl /dev/dax0.0 --size 64M'
    vm "$unmount"

    say "-- its driver is not there, and comes"
    refused 69 'no driver answers for the device /dev/dax0.0' \
        'echo dax0.0 >/sys/bus/dax/drivers/device_dax/unbind; embarfs /mnt/embar --cxl /dev/dax0.0'
    shown '(usleep 500000; echo dax0.0 >/sys/bus/dax/drivers/device_dax/bind) & embarfs /mnt/embar --cxl /dev/dax0.0' ||
        die "did not wait for the driver"
    count_topics
    vm "$unmount"

    say "-- a foreign label"
    local before
    device_at
    dd if="$vm_file" of="$scratch/head" bs=4096 count=1024 skip=$((vm_file_at / 4096)) status=none
    dd if=/dev/zero of="$vm_file" bs=4096 count=1024 seek=$((vm_file_at / 4096)) conv=notrunc status=none
    printf 'SOMEBODY ELSE' | dd of="$vm_file" bs=4096 seek=$((vm_file_at / 4096)) conv=notrunc status=none
    before=$(sha256sum <"$vm_file")
    refused 65 'not an embarfs pool .*embar pool erase /dev/dax0.0' 'embarfs /mnt/embar --cxl /dev/dax0.0'
    refused 1 'holds data already|not an embarfs pool' 'embar pool create /dev/dax0.0'
    [ "$before" = "$(sha256sum <"$vm_file")" ] || die "a refused device was changed"
    shown 'embar pool erase /dev/dax0.0 && embarfs /mnt/embar --cxl /dev/dax0.0 && ls /mnt/embar' || die "not erased"
    vm "$unmount"
    refused 1 'holds a pool and was not changed' 'embar pool erase /dev/dax0.0'
    # Back as it was: what a refusal leaves alone is still a pool.
    dd if="$scratch/head" of="$vm_file" bs=4096 seek=$((vm_file_at / 4096)) conv=notrunc status=none
}

# What a region of soft-reserved memory can be made into.
scenario_refuse_hmem() {
    say "-- another alignment: 1 GiB, 4 KiB"
    local align
    for align in 1073741824 4096; do
        shown "embar pool erase --force /dev/dax0.0
            echo dax0.0 >/sys/bus/dax/drivers/device_dax/unbind
            echo $align >/sys/bus/dax/devices/dax0.0/align
            echo dax0.0 >/sys/bus/dax/drivers/device_dax/bind
            embarfs /mnt/embar --cxl /dev/dax0.0 --durability machine && echo x >> /mnt/embar/t && cat /mnt/embar/t &&
            grep '\"durability\"' /mnt/embar/.embar/status" || die "no pool with alignment $align"
        said '^x$'
        said '"durability": "machine"'
        vm "$unmount"
    done
    say "-- too small"
    shown 'echo dax0.0 >/sys/bus/dax/drivers/device_dax/unbind
        echo 2097152 >/sys/bus/dax/devices/dax0.0/align
        echo 2097152 >/sys/bus/dax/devices/dax0.0/size
        echo dax0.0 >/sys/bus/dax/drivers/device_dax/bind' || die "not made smaller"
    refused 64 'has 2 MiB, and a pool takes at least' 'embarfs /mnt/embar --cxl /dev/dax0.0'
    say "-- in use as system memory"
    shown 'echo dax0.0 >/sys/bus/dax/drivers/device_dax/unbind
        echo 1073741824 >/sys/bus/dax/devices/dax0.0/size
        echo dax0.0 >/sys/bus/dax/drivers/device_dax/bind
        daxctl reconfigure-device -m system-ram dax0.0' || die "not onlined"
    refused 69 'in use as system memory \(NUMA node 1\): use --cxl node:1' 'embarfs /mnt/embar --cxl /dev/dax0.0'
    says '--cxl node:1' 'embar devices'
    shown 'embarfs /mnt/embar --cxl node:1:64M && echo x >> /mnt/embar/t && cat /mnt/embar/t' || die "no pool on node 1"
    vm "$unmount"
    says '^free$' 'daxctl reconfigure-device -f -m devdax dax0.0 >/dev/null && embar devices >/tmp/d && sed -n "s/^ *state *//p" /tmp/d'
}
