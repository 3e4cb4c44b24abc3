#!/usr/bin/env bash
# Checks the systemd units: clean (`systemd-analyze verify`), closed (`security` under 3.0), and that the services work in
# that sandbox: systemd is booted in a container on this machine's own /usr, in a network of its own, with the units, a
# site made by deploy/new-site.sh and the binaries of BIN; an encrypted call runs through them.
#
#   deploy/check/units.sh BIN PAGE      folders of the binaries (target/release) and of the built page (client/dist)
#
# Without root or systemd-nspawn it fails after the static part, or with ALLOW_SKIP=1 says what it left out.
set -euo pipefail
bin=$(realpath "$1")
page=$(realpath "$2")
deploy=$(cd "$(dirname "$0")/.." && pwd)
units=(curtain-sfu.service curtain-signaling.service)
limit=3.0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# verify looks for the binaries, so it gets a root folder in which everything is installed.
root=$work/root
mkdir -p "$root/etc/systemd/system/curtain-sfu.service.d" "$root/usr/local/bin" "$root/usr/lib"
cp "${units[@]/#/$deploy/systemd/}" "$root/etc/systemd/system/"
cp "$deploy/systemd/curtain-sfu-port-443.conf" "$root/etc/systemd/system/curtain-sfu.service.d/port-443.conf"
install -m 755 /bin/true "$root/usr/local/bin/sfu"
install -m 755 /bin/true "$root/usr/local/bin/signaling"
cp -r /usr/lib/systemd "$root/usr/lib/"
ln -s usr/lib "$root/lib"
said=$(systemd-analyze verify --root="$root" "${units[@]}" 2>&1) || { echo "$said" >&2; exit 1; }
[ -z "$said" ] || { echo "systemd-analyze verify says: $said" >&2; exit 1; }
echo "units: verify is clean"

score() { # ARGUMENTS of systemd-analyze security
    systemd-analyze security --offline=true "$@" --no-pager | sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p'
}
judge() { # NAME SCORE
    [ -n "$2" ] && awk -v s="$2" -v l="$limit" 'BEGIN { exit !(s < l) }' ||
        { echo "units: $1 has exposure ${2:-unknown}, want under $limit" >&2; exit 1; }
    echo "units: $1 has exposure $2 (under $limit)"
}
for unit in "${units[@]}"; do
    judge "$unit" "$(score "$deploy/systemd/$unit")"
done
judge "curtain-sfu.service on port 443" "$(score --root="$root" curtain-sfu.service)"

if [ "$(id -u)" -ne 0 ] || ! command -v systemd-nspawn >/dev/null; then
    echo "units: NOT run in their sandbox: that needs root and systemd-nspawn (package systemd-container)" >&2
    [ -n "${ALLOW_SKIP:-}" ] && exit 0 || exit 1
fi

"$deploy/new-site.sh" --host visit.test --address 127.0.0.1 --self-signed "$work/site" >/dev/null
mkdir -p "$work/local/bin" "$work/local/share/curtain" "$work/out"
chmod 755 "$work"
install -m 755 "$bin/sfu" "$bin/signaling" "$bin/loadtest" "$work/local/bin/"
cp -r "$page" "$work/local/share/curtain/page"
cat >"$work/curtain-check.service" <<'UNIT'
[Unit]
Description=Check of Curtain's units
SuccessAction=exit-force
FailureAction=exit-force
Wants=curtain-sfu.service curtain-signaling.service
After=curtain-sfu.service curtain-signaling.service
[Service]
Type=oneshot
TimeoutStartSec=90
ExecStart=/usr/bin/python3 /check/unit_host.py
StandardOutput=append:/check/out/log
StandardError=inherit
UNIT
cp "$deploy/check/unit_host.py" "$deploy/check/services.py" "$work/"
nspawn=(
    systemd-nspawn --quiet --register=no --keep-unit --directory=/ --volatile=yes --private-network --console=pipe
    --kill-signal=SIGRTMIN+3
    --bind-ro="$work/site:/etc/curtain" --bind-ro="$work/local:/usr/local"
    --bind-ro="$deploy/systemd/curtain.sysusers.conf:/etc/sysusers.d/curtain.conf"
    --bind-ro="$work/curtain-check.service:/etc/systemd/system/curtain-check.service"
    --bind-ro="$work/unit_host.py:/check/unit_host.py" --bind-ro="$work/services.py:/check/services.py" --bind="$work/out:/check/out"
    # There is no network to wait for.
    --bind-ro=/dev/null:/etc/systemd/system/systemd-networkd-wait-online.service
)
for unit in "${units[@]}"; do
    nspawn+=(--bind-ro="$deploy/systemd/$unit:/etc/systemd/system/$unit")
done
timeout 150 "${nspawn[@]}" --boot systemd.unit=curtain-check.service systemd.firstboot=off </dev/null \
    >"$work/console" 2>&1 || true
if ! [ -e "$work/out/good" ]; then
    cat "$work/console" "$work/out/log" >&2 || true
    echo "units: the services did not work in their sandbox" >&2
    exit 1
fi
cat "$work/out/log"
