#!/usr/bin/env bash
# `embar devices` on machines that are only a tree of files: every kind of device, every state, and a
# machine that has nothing. Real devices are listed in tests/vm.
set -euo pipefail
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
use_build "$EMBAR_BIN_DIR"

export EMBAR_DEVICES_ROOT=$scratch/machine
sys=$EMBAR_DEVICES_ROOT/sys
mkdir -p "$sys/bus/dax/devices" "$sys/bus/dax/drivers"/{device_dax,kmem} "$sys/bus/cxl/devices" \
    "$sys/devices/system/node" "$EMBAR_DEVICES_ROOT"/{dev,proc/self}

# device NAME FOLDER SIZE ALIGN NODE [DRIVER]: one of the bus, at a folder below sys/devices.
device() {
    local at=$sys/devices/$2/$1
    mkdir -p "$at"
    echo "$3" >"$at/size"
    echo "$4" >"$at/align"
    echo "$5" >"$at/target_node"
    [ -z "${6:-}" ] || ln -s "$sys/bus/dax/drivers/$6" "$at/driver"
    ln -s "$at" "$sys/bus/dax/devices/$1"
    : >"$EMBAR_DEVICES_ROOT/dev/$1"
}

# shows PATTERN [COMMAND-ARGUMENT...]
shows() {
    local pattern=$1
    shift
    embar devices "$@" >"$scratch/out" || die "embar devices failed"
    grep -qE -- "$pattern" "$scratch/out" || die "\"$pattern\" is not in: $(cat "$scratch/out")"
}

say "a machine with nothing"
shows 'no dax device, CXL memory, memory node without CPUs or'
shows '"dax": \[\]' --json

say "one with everything"
device dax0.0 platform/hmem.0 1073741824 2097152 1 device_dax
device dax0.1 platform/hmem.0 0 2097152 1
bridge=platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus0/region0
device dax1.0 $bridge/dax1.0 526385152 2097152 2 device_dax
echo memory_controller >"$sys/devices/$bridge/persistence_domain"
region=platform/ACPI0017:00/root0/decoder0.0/region1
device dax2.0 $region/dax_region1 268435456 4096 3 device_dax
echo ram >"$sys/devices/$region/mode"
echo 0x10000000 >"$sys/devices/$region/size"
device dax3.0 platform/hmem.1 1073741824 2097152 4 kmem
device dax4.0 platform/hmem.2 1073741824 2097152 -1
device dax5.0 pci0000:00/0000:00:05.0/virtio2/ndbus1/region5/dax5.0 268435456 2097152 0 device_dax
device dax6.0 LNXSYSTM:00/ndbus2/region6/dax6.0 268435456 2097152 0 device_dax
echo nd_volatile >"$sys/devices/LNXSYSTM:00/ndbus2/region6/devtype"
device dax7.0 platform/e820_pmem/ndbus3/region7/dax7.0 268435456 1073741824 0 device_dax
ln -s "$sys/devices/$region" "$sys/bus/cxl/devices/region1"
mkdir -p "$sys/bus/cxl/devices/mem0"/{ram,pmem}
echo 0x20000000 >"$sys/bus/cxl/devices/mem0/pmem/size"
echo 0x10000000 >"$sys/bus/cxl/devices/mem0/ram/size"
echo 0xabc >"$sys/bus/cxl/devices/mem0/serial"
for node in 0 4; do
    mkdir "$sys/devices/system/node/node$node"
    printf 'Node %s MemTotal: 1048576 kB\nNode %s MemFree: 524288 kB\n' $node $node \
        >"$sys/devices/system/node/node$node/meminfo"
done
echo 0-3 >"$sys/devices/system/node/node0/cpulist"
echo >"$sys/devices/system/node/node4/cpulist"
printf '%s\n' '/dev/pmem0 /mnt/fast ext4 rw,dax=always 0 0' '/dev/pmem1 /mnt/slow xfs rw,dax=never 0 0' \
    '/dev/sda1 / ext4 rw 0 0' >"$EMBAR_DEVICES_ROOT/proc/self/mounts"
# One is served: its slot is locked by a process that the tree shows. One is open elsewhere.
python3 - "$EMBAR_DEVICES_ROOT/dev/dax1.0" "$scratch/locked" <<'PYTHON' &
import fcntl, struct, sys, time
device = open(sys.argv[1], 'r+')
fcntl.fcntl(device, 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 1, 0))  # F_OFD_SETLK
open(sys.argv[2], 'w').close()
time.sleep(600)
PYTHON
own_pids+=($!)
for holder in "41 embarfs dax1.0" "42 fio dax7.0"; do
    read -r pid command name <<<"$holder"
    mkdir -p "$EMBAR_DEVICES_ROOT/proc/$pid/fd"
    ln -s "/dev/$name" "$EMBAR_DEVICES_ROOT/proc/$pid/fd/3"
    echo "$command" >"$EMBAR_DEVICES_ROOT/proc/$pid/comm"
done
wait_until 60 test -e "$scratch/locked" || die "the lock was not taken"

embar devices --json >"$scratch/facts"
python3 - "$scratch/facts" <<'PYTHON' || die "not what the machine has: $(cat "$scratch/facts")"
import json, sys
facts = json.load(open(sys.argv[1]))
dax = {d['name']: d for d in facts['dax']}
assert list(dax) == ['dax%d.0' % n for n in range(8)], list(dax)
assert dax['dax0.0']['size'] == 1 << 30 and dax['dax0.0']['align'] == 2 << 20
def is_(name, persistence, durability, state, use):
    d = dax[name]
    got = (d['persistence'], d['durability'], d['state'], d['use'])
    assert got == (persistence, durability, state, use), (name, got)
is_('dax0.0', 'unknown', 'process', 'free', '/dev/dax0.0')
is_('dax1.0', 'persistent', 'machine', 'served', '/dev/dax1.0')
is_('dax2.0', 'volatile', 'process', 'free', '/dev/dax2.0')
is_('dax3.0', 'unknown', 'process', 'system memory', 'node:4')
is_('dax4.0', 'unknown', 'process', 'no driver', '/dev/dax4.0')
is_('dax5.0', 'unknown', 'process', 'free', '/dev/dax5.0')
is_('dax6.0', 'volatile', 'process', 'free', '/dev/dax6.0')
is_('dax7.0', 'persistent', 'machine', 'open', '/dev/dax7.0')
assert dax['dax4.0']['node'] is None and dax['dax4.0']['driver'] is None
assert dax['dax1.0']['holders'] == [{'pid': 41, 'command': 'embarfs'}]
assert dax['dax7.0']['holders'] == [{'pid': 42, 'command': 'fio'}]
assert facts['cxl'][0] == {'name': 'mem0', 'kind': 'card', 'persistent': 512 << 20,
                           'volatile': 256 << 20, 'serial': 0xabc, 'firmware': ''}
assert facts['cxl'][1] == {'name': 'region1', 'kind': 'region', 'size': 256 << 20, 'mode': 'ram'}
assert [n['use'] for n in facts['nodes']] == ['node:4'] and facts['nodes'][0]['free'] == 512 << 20
assert [m['use'] for m in facts['fsdax']] == ['/mnt/fast/pool']
PYTHON
shows '^  /dev/dax0.0  1.0 GiB, alignment 2.0 MiB, NUMA node 1$'
shows 'busy: a pool on it is in use, held by embarfs \(process 41\)$'
shows 'busy: open in fio \(process 42\)$'
shows 'busy: in use as system memory; .* -m devdax dax3.0'
shows 'no driver is bound: .daxctl enable-device dax4.0'
shows 'persistence domain memory_controller$'
shows '^    use          --cxl node:4:SIZE$'
shows '^    use          --cxl /mnt/fast/pool --size SIZE$'

say "CXL memory that is no device yet"
rm -r "$sys/bus/dax" "$sys/devices/system/node/node4"
shows 'The CXL memory is not a device yet'

status=0
embar devices all 2>"$scratch/err" || status=$?
[ "$status" -eq 2 ] || die "an argument too many: status $status"
