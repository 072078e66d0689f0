# shellcheck shell=bash
# shellcheck disable=SC2016,SC2034,SC2054,SC2154 # scripts for the guest; names shared between these files
# Virtual machines with a devdax device, and a way to run scripts in them. Source it.
#
#   vm_prepare VARIANT    image and backing files: hmem or cxl
#   vm_start              boot; the boot's time in $vm_boot_ms
#   vm SCRIPT             run it in the guest; its output and status are this function's
#   vm_kill               SIGKILL of the whole machine; vm_reset: its reset button
#
# Serial ports: 0 the console, 1 scripts and their output, 2 acknowledgements. Port 2 is written by
# QEMU into $vm_acks, which outlives it: what stands there was acknowledged before the machine died.
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
use_build "${EMBAR_BIN_DIR:-$top/build/release/bin}"
vm_counted=${EMBAR_BIN_DIR:-$top/build/release/bin}/../tests/vm/embar-test-counted
# shellcheck source=tests/vm/image.sh
. "$top/tests/vm/image.sh"

vm_pid=


now_ms() {
    echo $((${EPOCHREALTIME/[.,]/} / 1000))
}

# vm_prepare VARIANT: what all machines of this run share.
vm_prepare() {
    vm_variant=$1
    vm_image "$1"
    vm_acks=$scratch/acks
    vm_console=$scratch/console
    : >"$vm_acks"
    : >"$vm_console"
    mkfifo "$scratch"/{cmd,mon}.{in,out}
    vm_append="console=ttyS0 panic=-1 quiet"
    case $1 in
    hmem)
        truncate -s 1G "$scratch/node1.img"
        vm_append+=" memmap=1G%4G-1+0xefffffff"
        vm_hardware=(-M q35 -m 3G -object memory-backend-ram,id=m0,size=2G
            -object "memory-backend-file,share=on,id=m1,size=1G,mem-path=$scratch/node1.img"
            -numa node,nodeid=0,cpus=0-1,memdev=m0 -numa node,nodeid=1,memdev=m1)
        ;;
    cxl)
        # Two root ports: with one, QEMU 7.2 drops every write silently. A serial number: without it
        # the labels are lost at the second boot.
        truncate -s 256M "$scratch/cxl.img"
        truncate -s 1M "$scratch/labels.img"
        vm_hardware=(-M "q35,cxl=on,cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=4G" -m 1G,slots=2,maxmem=4G
            -object "memory-backend-file,share=on,id=cm,size=256M,mem-path=$scratch/cxl.img"
            -object "memory-backend-file,share=on,id=lsa,size=1M,mem-path=$scratch/labels.img"
            -device pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1
            -device cxl-rp,port=0,bus=cxl.1,id=rp0,chassis=0,slot=2
            -device cxl-rp,port=1,bus=cxl.1,id=rp1,chassis=0,slot=3
            -device cxl-type3,bus=rp0,memdev=cm,lsa=lsa,id=t3,sn=0x1)
        ;;
    *) die "no variant '$1': hmem or cxl" ;;
    esac
}

# vm_start: power on, and wait until the guest takes scripts and its device is there.
vm_start() {
    local began
    began=$(now_ms)
    vm_out=$scratch/out.$began
    : >"$vm_out"
    # A machine must not outlive this script, whatever ends it.
    setpriv --pdeathsig KILL qemu-system-x86_64 \
        -accel tcg,thread=multi -cpu max -smp 2 -nodefaults -no-user-config -display none \
        -action reboot=reset "${vm_hardware[@]}" \
        -kernel "$vm_kernel" -initrd "$vm_initrd" -append "$vm_append" \
        -chardev "file,id=con,path=$vm_console,append=on" -serial chardev:con \
        -chardev "pipe,id=cmd,path=$scratch/cmd" -serial chardev:cmd \
        -chardev "file,id=acks,path=$vm_acks,append=on" -serial chardev:acks \
        -chardev "pipe,id=mon,path=$scratch/mon" -mon chardev=mon,mode=readline \
        </dev/null >>"$scratch/qemu.log" 2>&1 &
    vm_pid=$!
    own_pids+=("$vm_pid")
    echo >>"$vm_acks" # what a machine was saying as it died is a line of its own
    # Both are read all the time, or the machine would wait for them.
    cat "$scratch/cmd.out" >>"$vm_out" &
    own_pids+=($!)
    cat "$scratch/mon.out" >/dev/null &
    own_pids+=($!)
    exec 7>"$scratch/cmd.in" 8>"$scratch/mon.in"
    vm_await_ready "$began"
}

vm_is_ready_or_ended() {
    grep -aq '^@@READY' "$vm_out" || is_ended "$vm_pid"
}

vm_await_ready() {
    if ! wait_until "${VM_BOOT_TIMEOUT:-300}" vm_is_ready_or_ended || ! grep -aq '^@@READY' "$vm_out"; then
        tail -n 30 "$vm_console" "$scratch/qemu.log" >&2
        die "the machine did not boot"
    fi
    vm_boot_ms=$(($(now_ms) - $1))
    "vm_device_$vm_variant"
    vm_device_ms=$(($(now_ms) - $1))
}

vm_script_ended() {
    grep -aq "^@@END $vm_number " "$vm_out" || is_ended "$vm_pid"
}

# vm SCRIPT [SECONDS]: output to standard output, status returned.
vm() {
    local status
    vm_number=${EPOCHREALTIME/[.,]/} # in a subshell, too, no number comes twice
    local from=$(($(stat -c %s "$vm_out") + 1))
    printf '%s %s\n' "$vm_number" "$(base64 -w 0 <<<"$1")" >&7
    wait_until "${2:-300}" vm_script_ended || { tail -n 20 "$vm_console" >&2; die "the guest does not answer: $1"; }
    status=$(sed -n "s/^@@END $vm_number //p" "$vm_out")
    [ -n "$status" ] || die "the machine ended during: $1"
    tail -c "+$from" "$vm_out" | sed '/^@@END /d'
    return "$status"
}

vm_kill() {
    kill -KILL "$vm_pid"
    wait "$vm_pid" 2>/dev/null || true
    exec 7>&- 8>&-
}

# The reset button: same QEMU, same memory, a new boot.
vm_reset() {
    local began
    began=$(now_ms)
    : >"$vm_out" # its reader appends
    echo system_reset >&8
    vm_await_ready "$began"
}

# ---- The device ---------------------------------------------------------------------------------

vm_device_hmem() {
    vm 'n=0; until [ -e /dev/dax0.0 ] || [ $n -gt 2400 ]; do n=$((n + 1)); usleep 50000; done; [ -c /dev/dax0.0 ]' ||
        die "no /dev/dax0.0 in the guest"
}

# A region each boot; a namespace, whose label stands in the card, on the first. `cxl` may fail and
# still return 0: what counts is the device.
vm_device_cxl() {
    vm 'cxl create-region -m -t pmem -d decoder0.0 -w 1 mem0 >/tmp/cxl.log 2>&1
        [ -e /dev/dax0.0 ] || ndctl create-namespace -r region0 -m devdax -a 2M >>/tmp/cxl.log 2>&1
        n=0; until [ -e /dev/dax0.0 ] || [ $n -gt 2400 ]; do n=$((n + 1)); usleep 50000; done
        [ -c /dev/dax0.0 ] || { cat /tmp/cxl.log; exit 1; }' || die "no /dev/dax0.0 in the guest"
}
