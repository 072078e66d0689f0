# shellcheck shell=bash
# shellcheck disable=SC2016,SC2034,SC2054,SC2154 # scripts for the guest; names shared between these files
# The whole machine is killed while it publishes, and another one finds its memory. Sourced by run.

# scenario_vm_kill KILLS
scenario_vm_kill() {
    local n began
    say "== SIGKILL of the machine, $1 times"
    for ((n = 1; n <= $1; n++)); do
        publish_on
        sleep "$((RANDOM % 2)).$((RANDOM % 10))"
        vm_kill
        began=$(now_ms)
        vm_start
        vm "$headline" || die "no mount after the machine was killed"
        say "kill $n: boot $vm_boot_ms ms, device $vm_device_ms ms, mounted after $(($(now_ms) - began)) ms"
        count_topics
    done
    say "$1 kills: $((told_echo + told_batch + told_stream)) lines acknowledged, 0 lost, 0 doubled, 0 out of place"
}

scenario_vm_reset() {
    say "== the reset button"
    publish_on
    vm_reset
    vm "$headline" || die "no mount after a reset"
    say "boot $vm_boot_ms ms, device $vm_device_ms ms"
    count_topics
}
