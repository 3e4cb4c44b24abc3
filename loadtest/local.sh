#!/usr/bin/env bash
# Starts the development host on free ports of loopback, runs `loadtest COMMAND ...` against it, and stops it.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bin=${CURTAIN_BIN:-$root/target/release}
folder=$(mktemp -d)
"$bin/curtain-dev" --json --http-port 0 --sfu-http-port 0 --udp-port 0 --control-port 0 --data-dir "$folder" \
  --page "$root/client/dist" >"$folder/ready.json" &
host=$!
trap 'kill "$host" 2>/dev/null || true; wait "$host" 2>/dev/null || true; rm -rf "$folder"' EXIT
for _ in $(seq 100); do
  [ -s "$folder/ready.json" ] && break
  kill -0 "$host" || exit 2
  sleep 0.1
done
value() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$folder/ready.json"; }
command=$1
shift
LIVEKIT_API_KEY=$(value api_key) LIVEKIT_API_SECRET=$(value api_secret) "$bin/loadtest" "$command" --url "$(value ws)" \
  --relay-metrics "$(value metrics)" "$@"
