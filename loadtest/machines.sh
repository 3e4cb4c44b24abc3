#!/usr/bin/env bash
# Several testers on machines of their own, made of network namespaces: a relay with its signalling (TLS, from a site of
# deploy/new-site.sh), a coordinator and two agents on a bridge. Of the
# three in each room the third, who is the second agent's, is behind 8 ms of delay each way. Checks that one run comes of it:
# participants of all, and a distribution of delay that is that of all frames, not a mean of the testers'. Then the same three search
# for what the relay carries. As root.
#
#   loadtest/machines.sh        CURTAIN_BIN: folder of the binaries (target/release)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$(realpath "${CURTAIN_BIN:-$root/target/release}")
work=$(mktemp -d)
tag=lt$$
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    for name in relay here near far; do ip netns del "$tag-$name" 2>/dev/null || true; done
    ip link del "$tag" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

ip link add "$tag" type bridge
ip link set "$tag" up
host=1
for name in relay here near far; do
    ip netns add "$tag-$name"
    ip link add "$tag-$host" type veth peer name eth0 netns "$tag-$name"
    ip link set "$tag-$host" master "$tag" up
    ip -n "$tag-$name" addr add "10.213.77.$host/24" dev eth0
    ip -n "$tag-$name" link set eth0 up
    ip -n "$tag-$name" link set lo up
    declare "$name=10.213.77.$host"
    host=$((host + 1))
done
cat >"$work/scenario.toml" <<'TOML'
name = "machines"
duration = "8s"
ramp = "2s"
[[rooms]]
count = 6
[[rooms.roles]]
count = 2
video = "180p"
audio = true
[[rooms.roles]]
video = "180p"
audio = true
link = { delay = "8ms" }
TOML

run() { # NAMESPACE COMMAND...
    local name=$1
    shift
    exec ip netns exec "$tag-$name" "$@"
}
site=$work/site
# shellcheck disable=SC2154 # the loop above declares relay, near and far
"$root/deploy/new-site.sh" --host visit.test --address "$relay" --self-signed "$site" >/dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=visit.test \
    -addext "subjectAltName=IP:$relay" -addext basicConstraints=critical,CA:FALSE -keyout "$site/privkey.pem" -out "$site/fullchain.pem" 2>/dev/null
sed -i -e 's/^page = /# page = /' -e "s|/var/lib/curtain/|$work/|" "$site/signaling.toml"
export LOADTEST_AGENT_SECRET=agents-of-one-machine
start() { # NAMESPACE LOG COMMAND...
    local name=$1 log=$2
    shift 2
    (cd "$site" && run "$name" "$@") >"$work/$log" 2>&1 &
    started+=($!)
}
start relay sfu "$bin/sfu" --config sfu.toml
start relay signaling "$bin/signaling" --config "$site/signaling.toml"
for name in near far; do
    start "$name" "$name" "$bin/loadtest" agent --listen "${!name}:7990"
done
is_up() { (run relay curl -fs http://127.0.0.1:7889/metrics) | grep -qx 'curtain_signaling_relay_link_up 1'; }
for _ in $(seq 100); do
    is_up && grep -q waiting "$work/near" && grep -q waiting "$work/far" && break
    sleep 0.1
done
read -r LIVEKIT_API_KEY LIVEKIT_API_SECRET < <(sed -n 's/^\(API[0-9a-f]*\) = "\(.*\)"$/\1 \2/p' "$site/signaling.toml")
export LIVEKIT_API_KEY LIVEKIT_API_SECRET
status=0
(run here "$bin/loadtest" run --url "wss://$relay" --ca "$site/fullchain.pem" --agent "$near:7990" --agent "$far:7990" --threads 1 \
    --scenario "$work/scenario.toml" --json "$work/run.json" --quiet) >"$work/said" || status=$?
cat "$work/said"
[ -s "$work/run.json" ] || { cat "$work/sfu" "$work/signaling" "$work/near" "$work/far" >&2; exit 1; }
# Of three in a room one is behind the delay: four of six streams cross it once, the others not at all.
/usr/bin/python3 - "$work/run.json" "$status" <<'PY'
import json, sys

run, status = json.load(open(sys.argv[1])), int(sys.argv[2])
streams = {kind: [s for s in run["streams"] if s["kind"] == kind] for kind in ("audio", "video")}
delay, joins = run["video"]["delay_ms"], run["joins"]
assert not run["invalid"], run["invalid"]
assert status == (0 if all(o["holds"] for o in run["objectives"]) else 1), status
assert (run["participants"], joins["joined"], joins["failed"]) == (18, 18, 0), joins
assert run["tester"]["threads"] == 3, run["tester"]
assert len(streams["video"]) == 36 and len(streams["audio"]) == 36, {k: len(v) for k, v in streams.items()}
frames = sum(s["shown"] for s in streams["video"])
assert delay["count"] == frames, (delay, frames)
# The share of frames that took less than half the delay put in: a third.
quick = sum(n for us, n in run["video_delay"] if us < 4000) / frames
assert abs(quick - 1 / 3) < 0.05, quick
assert 8 <= delay["p50"] < 20 and delay["p99"] >= 8, delay
near = [s for s in streams["video"] if min((us for us, _ in s["delay"]), default=0) < 4000]
assert len(near) == 12, len(near)
print(f"machines: one run of three testers; {quick:.0%} of the frames came in under 4 ms, p50 {delay['p50']:.1f} ms")
PY
status=0
(run here "$bin/loadtest" capacity --url "wss://$relay" --ca "$site/fullchain.pem" --agent "$near:7990" --agent "$far:7990" --threads 1 \
    --participants 3 --audio --start 2 --max 4 --ramp 1s --duration 3s --pause 500ms --json "$work/capacity.json" \
    --html "$work/capacity.html" --quiet) >"$work/said" || status=$?
cat "$work/said"
[ -s "$work/capacity.json" ] || { cat "$work/near" "$work/far" >&2; exit 1; }
/usr/bin/python3 - "$work/capacity.json" "$status" <<'PY'
import json, sys

steps, status = json.load(open(sys.argv[1]))["steps"], int(sys.argv[2])
# Without those that were run again.
steps = [s for s in steps if "repeated" not in s]
assert [(s["size"], s["participants"], s["streams"]) for s in steps] == [(2, 6, 12), (4, 12, 24)], steps
assert all(s["holds"] and not s["invalid"] for s in steps), steps
# Nothing broke up to --max: the limit was not found.
assert status == 3, status
print("machines: a search by three testers, each step with the participants of all")
PY
