#!/usr/bin/env bash
# Builds the images' last stages with the binaries of BIN and runs them as compose.yaml does: not root, read-only, without
# capabilities, with the secrets of a new site. For machines that reach no image registry: the base images are made from
# Debian's packages (the C library, certificates) under the names that the Dockerfile has, and the build stage, which is
# `make build`, is left out. Prometheus is this machine's, under the image's name; Grafana, which Debian does not have, is
# not run. As root, with podman, runc, mmdebstrap and prometheus; nothing of it stays.
#
#   deploy/check/images.sh BIN PAGE     folders of the binaries (target/release) and of the built page (client/dist)
set -euo pipefail
bin=$(realpath "$1")
page=$(realpath "$2")
deploy=$(cd "$(dirname "$0")/.." && pwd)
self=$deploy/check/images.sh
for program in podman runc mmdebstrap prometheus; do
    command -v "$program" >/dev/null ||
        { echo "images: needs podman, runc, mmdebstrap and prometheus (Debian packages)" >&2; exit 1; }
done
# As compose.yaml has it.
of_prometheus() { # KEY
    /usr/bin/python3 -c 'import sys, yaml
value = yaml.safe_load(open(sys.argv[1]))["services"]["prometheus"][sys.argv[2]]
print("\n".join(value) if isinstance(value, list) else value)' "$deploy/containers/compose.yaml" "$1"
}
prometheus_image=$(of_prometheus image)
if [ "${CURTAIN_OWN_NETWORK:-}" = yes ]; then
    ip link set lo up
    # The host on the bridge of compose.yaml.
    ip addr add 10.89.77.1/24 dev lo
    cd "$CURTAIN_IMAGES_WORK"
else
    work=$(mktemp -d)
    trap 'podman --root "$work/root" --runroot "$work/run" --storage-driver vfs rm --all --force >/dev/null 2>&1 || true
          rm -rf "$work"' EXIT
    mkdir -p "$work/context/out/bin" "$work/context/out/state"
    cp "$bin/sfu" "$bin/signaling" "$work/context/out/bin/"
    cp -r "$page" "$work/context/out/page"
    cp "$(command -v prometheus)" "$work/context/prometheus"
    # What the published image says of itself: its user, its folder and its program.
    cat >"$work/Prometheus" <<'FILE'
FROM gcr.io/distroless/cc-debian12:nonroot
COPY prometheus /bin/prometheus
COPY --chown=65534:65534 out/state /prometheus
USER 65534
WORKDIR /prometheus
VOLUME /prometheus
ENTRYPOINT ["/bin/prometheus"]
FILE
    # All but the stages up to `build`, of which the others take /out.
    sed -e '/^FROM ${NODE} AS node/,/^# No shell/d' -e '/^ARG DEBIAN=/a FROM scratch AS build\nCOPY out /out' \
        "$deploy/containers/Dockerfile" >"$work/Dockerfile"
    "$deploy/new-site.sh" --containers --host visit.test --address 127.0.0.1 --self-signed "$work/site" >/dev/null
    chown -R 65532:65532 "$work/site"
    chmod 755 "$work"
    export CURTAIN_IMAGES_WORK=$work
    cd "$work"
fi
podman() {
    command podman --root "$PWD/root" --runroot "$PWD/run" --storage-driver vfs --cgroup-manager cgroupfs --runtime runc "$@"
}

if [ "${CURTAIN_OWN_NETWORK:-}" != yes ]; then
    mmdebstrap --quiet --variant=extract --include=libc6,libgcc-s1,libstdc++6,ca-certificates,base-files bookworm cc.tar
    mmdebstrap --quiet --variant=minbase --include=ca-certificates bookworm debian.tar
    podman import cc.tar gcr.io/distroless/cc-debian12:nonroot >/dev/null 2>&1
    podman import debian.tar docker.io/library/debian:bookworm-slim >/dev/null 2>&1
    for target in sfu signaling coturn; do
        podman build --pull=never --isolation chroot --network host --file Dockerfile --target "$target" \
            --tag "curtain-$target" context >build.log 2>&1 || { tail -30 build.log >&2; exit 1; }
    done
    podman build --pull=never --isolation chroot --network host --file Prometheus --tag "$prometheus_image" \
        context >build.log 2>&1 || { tail -30 build.log >&2; exit 1; }
    echo "images: built"
    CURTAIN_OWN_NETWORK=yes unshare --net "$self" "$bin" "$page"
    exit
fi

# Limits of the machine on which this runs may be below those of compose.yaml.
closed=(--detach --network host --read-only --read-only-tmpfs=false --cap-drop ALL --security-opt no-new-privileges
    --ulimit nofile=1024:4096 --ulimit nproc=1000:1000)
start() { # NAME SECRETS-AND-OPTIONS...
    local name=$1 options=() word
    shift
    for word in "$@"; do
        case $word in
            -*) options+=("$word") ;;
            *) options+=("--volume=$PWD/site/$word:/run/secrets/$word:ro") ;;
        esac
    done
    podman run "${closed[@]}" --name "$name" --user 65532:65532 "${options[@]}" "localhost/curtain-$name" >/dev/null
}
fail() {
    echo "images: $1" >&2
    for name in sfu signaling coturn prometheus; do podman logs "$name" >&2 || true; done
    exit 1
}
until_good() { # WHAT COMMAND...
    local what=$1
    shift
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "$what took more than 30 seconds"
}
start sfu sfu.toml control-ca.pem sfu.pem sfu.key
start signaling --volume=audit:/var/lib/curtain signaling.toml control-ca.pem signaling.pem signaling.key fullchain.pem privkey.pem
start coturn --tmpfs=/tmp:mode=1777 turnserver.conf fullchain.pem privkey.pem
mapfile -t command < <(of_prometheus command)
podman run "${closed[@]}" --name prometheus --user "$(of_prometheus user)" --add-host signaling:127.0.0.1 \
    --volume="$deploy/containers/prometheus.yml:/etc/prometheus/prometheus.yml:ro" \
    --volume="$deploy/prometheus/curtain.rules.yml:/etc/prometheus/curtain.rules.yml:ro" \
    --volume=prometheus:/prometheus "$prometheus_image" "${command[@]}" >/dev/null
link_is_up() { curl -fs http://127.0.0.1:7889/metrics | grep -qx 'curtain_signaling_relay_link_up 1'; }
turn_answers() { openssl s_client -connect 127.0.0.1:5349 </dev/null; }
scraped() { [ "$(curl -fs http://127.0.0.1:9090/api/v1/targets | grep -o '"health":"up"' | wc -l)" = 2 ]; }
ruled() { curl -fs http://127.0.0.1:9090/api/v1/rules | grep -q CurtainRelayDown; }
until_good "the relay" curl -fs http://10.89.77.1:7881/readyz
until_good "the control link" link_is_up
until_good "the page" curl -fsk https://127.0.0.1:8443/
until_good "TURN over TLS" turn_answers
until_good "Prometheus, which scrapes both" scraped
until_good "the alert rules" ruled
for name in sfu signaling coturn prometheus; do
    user=65532
    [ "$name" = prometheus ] && user=65534
    pid=$(podman inspect --format '{{.State.Pid}}' "$name")
    grep -q "^Uid:[[:space:]]*$user[[:space:]]" "/proc/$pid/status" || fail "$name runs as another user"
    grep -q '^CapEff:[[:space:]]*0*$' "/proc/$pid/status" || fail "$name has capabilities"
    grep -q '^NoNewPrivs:[[:space:]]*1$' "/proc/$pid/status" || fail "$name may gain privileges"
    grep -Eq '^[0-9]+ [0-9]+ [0-9:]+ [^ ]+ / ro[, ]' "/proc/$pid/mountinfo" || fail "$name may write to its root"
done
for name in signaling sfu; do
    podman stop --time 15 "$name" >/dev/null
    [ "$(podman inspect --format '{{.State.ExitCode}}' "$name")" = 0 ] || fail "$name did not end well"
    ! podman logs "$name" 2>&1 | grep -q '"ERROR"' || fail "$name complains"
done
podman stop --time 1 coturn prometheus >/dev/null 2>&1
echo "images: relay, signalling, coturn and Prometheus run closed; link, page and TURN answer, both services are scraped"
