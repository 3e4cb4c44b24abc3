#!/bin/sh
# Runs a command in a network namespace of its own that has a non-loopback address and a default route: Firefox pairs
# with no loopback address. Nothing leaves the namespace.
set -eu
if [ "${1:-}" != --inside ]; then
    if [ "$(id -u)" = 0 ]; then
        exec unshare --net -- "$0" --inside "$@"
    fi
    exec unshare --map-root-user --net -- "$0" --inside "$@"
fi
shift
ip link set lo up
ip link add v0 type veth peer name v1
ip addr add 10.99.0.1/24 dev v0
ip link set v0 up
ip link set v1 up
ip route add default via 10.99.0.2 dev v0
exec "$@"
