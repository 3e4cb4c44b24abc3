#!/usr/bin/env bash
# Makes sure that what a make target needs is on this machine: installs Debian packages where it may (root, or sudo
# without a password), else names the command that a person must run.
#
#   deploy/setup.sh build    to build and run
#   deploy/setup.sh test     also what the tests with real clients need
#   deploy/setup.sh bench    also what counts instructions
#   deploy/setup.sh deploy   also what `make deploy-check` needs. On a machine run by systemd the package `prometheus` starts a
#                            server on port 9090: systemctl disable --now prometheus
set -euo pipefail

missing=()
need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}

command -v cargo >/dev/null || { echo "setup: Rust is missing: see https://rustup.rs" >&2; exit 1; }
command -v npm >/dev/null || { echo "setup: Node.js 20 or newer with npm is missing" >&2; exit 1; }
need cc build-essential

if [ "${1:-build}" = test ]; then
    need chromium chromium
    need firefox-esr firefox-esr
    need openssl openssl
    need python3 python3
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
    need ip iproute2
    need tc iproute2
    need nft nftables
    need turnserver coturn
    need certutil libnss3-tools
    need unshare util-linux
fi
if [ "${1:-build}" = deploy ]; then
    need promtool prometheus
    need systemd-analyze systemd
    need systemd-nspawn systemd-container
    need docker-compose docker-compose
    need openssl openssl
    need python3 python3
    need curl curl
    need ip iproute2
    need nft nftables
    need unshare util-linux
fi

if [ "${1:-build}" = bench ]; then
    need valgrind valgrind
fi

[ "${#missing[@]}" -eq 0 ] && exit 0
if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    echo "setup: packages are missing and this user may not install them. Run:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y ${missing[*]}" >&2
    exit 1
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 update -qq
"${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
