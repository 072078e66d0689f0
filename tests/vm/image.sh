# shellcheck shell=bash
# shellcheck disable=SC2016,SC2034,SC2054,SC2154 # scripts for the guest; names shared between these files
# What a virtual machine boots from: a Debian kernel that is unpacked and not installed, and an
# initramfs of busybox, that kernel's modules and the programs of this build. Sourced by lib.sh.
# Nothing here runs in the guest but what guest/ holds.

# Kernel packages are kept beside the build: 26 MB to fetch, 3 s to unpack.
vm_cache=${EMBAR_VM_CACHE:-${EMBAR_BUILD_DIR:-$top/build}/vm}

# Modules of each variant; what they need in turn is in modules.dep.
vm_modules_hmem="fuse device_dax dax_hmem kmem"
vm_modules_cxl="fuse device_dax cxl_acpi cxl_pci cxl_mem cxl_pmem nd_pmem dax_pmem"

# vm_need: everything a machine takes, or the reason why there can be none in $vm_missing.
vm_need() {
    vm_missing=
    if [ "$(uname -m)" != x86_64 ]; then
        vm_missing="the machines are x86-64 ones, and this is $(uname -m)"
    elif ! (need_packages vm) >"$scratch/need" 2>&1; then
        vm_missing="no QEMU or tools: $(tail -n 1 "$scratch/need")"
    elif ! vm_fetch_kernel; then
        vm_missing=$(tail -n 1 "$scratch/apt.log")
        vm_missing="no kernel package: ${vm_missing:-apt-get update failed}"
    fi
    [ -z "$vm_missing" ]
}

# The package that linux-image-cloud-amd64 stands for now.
vm_kernel_package() {
    apt-cache show --no-all-versions linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^Depends: *\(linux-image-[0-9][^ ,]*\).*/\1/p' | head -n 1
}

# vm_fetch_kernel: $vm_kernel is its image, $vm_modules its modules' tree, $vm_release its name.
vm_fetch_kernel() {
    local package work
    package=$(vm_kernel_package)
    if [ -z "$package" ]; then
        apt_get update >"$scratch/apt.log" 2>&1 || return 1
        package=$(vm_kernel_package)
    fi
    if [ -z "$package" ]; then
        echo "apt knows no linux-image-cloud-amd64" >"$scratch/apt.log"
        return 1
    fi
    vm_release=${package#linux-image-}
    if ! [ -e "$vm_cache/$package/modules.dep" ]; then
        mkdir -p "$vm_cache"
        work=$(mktemp -d "$vm_cache/new.XXXXXX")
        own_files+=("$work")
        unpack_packages "$work" "$package" || return 1
        /sbin/depmod -b "$work" "$vm_release" >"$scratch/apt.log" 2>&1 || return 1
        mkdir "$work/keep"
        mv "$work/boot/vmlinuz-$vm_release" "$work/keep/vmlinuz"
        mv "$work/lib/modules/$vm_release"/* "$work/keep/"
        # Another run may have been faster: then its copy is as good.
        mv -T "$work/keep" "$vm_cache/$package" 2>/dev/null || true
    fi
    vm_kernel=$vm_cache/$package/vmlinuz
    vm_modules=$vm_cache/$package
}

# vm_closure MODULE...: their files and all they depend on, each once. modprobe would not do: ndctl's
# configuration hides libnvdimm from it.
vm_closure() {
    awk -v wanted="$*" '
        { name = $1; sub(/:$/, "", name); short = name; sub(/.*\//, "", short); sub(/\.ko.*/, "", short)
          gsub(/-/, "_", short); at[short] = name; line = $0; sub(/^[^:]*: */, "", line); needs[short] = line }
        END { n = split(wanted, w, " ")
              for (i = 1; i <= n; i++) {
                  if (!(w[i] in at)) continue # built in
                  m = split(needs[w[i]] " " at[w[i]], files, " ")
                  for (k = 1; k <= m; k++) if (!seen[files[k]]++) print files[k] } }' "$vm_modules/modules.dep"
}

# vm_take PROGRAM...: into the image's /bin, with the libraries it is linked to. Where it stood does not
# matter, for a build may be anywhere, also where the guest mounts something else.
vm_take() {
    local program file
    for program in "$@"; do
        install -m 755 "$program" "$vm_root/bin/${program##*/}"
        for file in $(ldd "$program" 2>/dev/null | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p'); do
            [ -e "$vm_root/lib/${file##*/}" ] || install -m 755 "$file" "$vm_root/lib/"
        done
    done
}

# vm_image VARIANT: the initramfs, in $vm_initrd.
vm_image() {
    local modules=vm_modules_$1 file wanted
    vm_root=$scratch/image
    vm_initrd=$scratch/initrd
    mkdir -p "$vm_root"/{bin,dev,proc,sys,run,tmp,etc,mnt/embar,lib/modules/"$vm_release"}
    install -m 755 "$top/tests/vm/guest/init" "$vm_root/init"
    install -m 755 "$top/tests/vm/guest/publish" "$vm_root/bin/publish"
    install -m 755 "$(command -v busybox)" "$vm_root/bin/busybox"
    read -ra wanted <<<"${!modules}"
    for file in $(vm_closure "${wanted[@]}"); do
        install -D -m 644 "$vm_modules/$file" "$vm_root/lib/modules/$vm_release/$file"
    done
    touch "$vm_root/lib/modules/$vm_release"/modules.{order,builtin,builtin.modinfo}
    /sbin/depmod -b "$vm_root" "$vm_release"
    printf '%s\n' "${wanted[@]}" >"$vm_root/etc/modules"
    vm_take "$(command -v fusermount3)" "$(command -v ndctl)" "$(command -v daxctl)" "$(command -v cxl)" \
        /usr/bin/tail /usr/bin/cat "$(command -v embarfs)" "$(command -v embar)"
    vm_take "$vm_counted"
    mv "$vm_root/bin/${vm_counted##*/}" "$vm_root/bin/counted"
    install -D -m 755 /lib64/ld-linux-x86-64.so.2 "$vm_root/lib64/ld-linux-x86-64.so.2"
    echo root:x:0:0::/:/bin/sh >"$vm_root/etc/passwd"
    echo user:x:1000:1000::/tmp:/bin/sh >>"$vm_root/etc/passwd"
    printf 'root:x:0:\nuser:x:1000:\n' >"$vm_root/etc/group"
    (cd "$vm_root" && find . -print0 | cpio --quiet -0 -o -H newc -R 0:0) >"$vm_initrd"
}
