# What a fresh Debian 12 machine with Rust lacks, installed by apt after having said so. Sourced.

# need WHAT_FOR PACKAGE..
need() {
    local what=$1 package missing=()
    shift
    for package; do
        # The status word: a removed package with configuration left is known to dpkg as well.
        if [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
            missing+=("$package")
        fi
    done
    if ((${#missing[@]} == 0)); then return; fi
    echo "installing for $what: ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi
}

need_rust() {
    if command -v cargo >/dev/null; then return; fi
    echo "cargo is not here: install Rust from https://rustup.rs" >&2
    exit 1
}

need_for_build() { need "the build" gcc libc6-dev libudev-dev pkg-config; }
need_for_packages() { need "the packages and their checks" dpkg-dev binutils rpm lintian udev systemd; }
need_for_lab() {
    need "the lab's VM" qemu-system-x86 debootstrap e2fsprogs kmod xz-utils util-linux
}

need_for_cluster() {
    local packages=(build-essential dpkg-dev openssl)
    # Somebody else's kubectl serves as well.
    command -v kubectl >/dev/null || packages+=(kubernetes-client)
    need "the API server" "${packages[@]}"
}

# lab_image [KERNEL]: built once. debootstrap wants root; the cache stays the caller's.
lab_image() {
    local kernel=(--kernel "${1:-6.1}")
    if [[ $(id -u) == 0 ]]; then
        cargo xtask lab prepare "${kernel[@]}"
        return
    fi
    local cache=${XDG_CACHE_HOME:-$HOME/.cache}/nvme-heal-lab
    cargo build --quiet --package xtask
    sudo env HOME="$HOME" XDG_CACHE_HOME="${XDG_CACHE_HOME:-$HOME/.cache}" \
        "${CARGO_TARGET_DIR:-target}/debug/xtask" lab prepare "${kernel[@]}"
    sudo chown "$(id -u):$(id -g)" "$cache" "$cache"/lock
}

# LLVM's programs of the compiler's own version. Fails where they are not to be had.
need_for_coverage() {
    local host llvm
    host=$(rustc -vV | sed -n 's/^host: //p')
    llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    if [[ -x $(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-cov ]]; then return; fi
    if command -v rustup >/dev/null; then
        echo "installing the llvm-tools component of the tool-chain"
        if rustup component add llvm-tools; then return; fi
    fi
    need "the coverage" "llvm-$llvm"
}

# The module that os-brick imports is tested beside the real one, in environments of their own.
need_python() {
    python3 -c 'import ensurepip, venv' 2>/dev/null || need "the module of os-brick" python3-venv
}
