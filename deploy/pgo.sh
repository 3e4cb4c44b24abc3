#!/usr/bin/env bash
# Profile-guided optimization: builds with counters, lets calls run, and builds once more by what was counted. What every
# call runs then lies together, and what hardly ever runs is out of its way. docs/performance.md says what it gains.
#
#   deploy/pgo.sh release    sfu, signaling and curtain-dev, by calls of the load tester; into target/pgo/release
#   deploy/pgo.sh bench      shard_fanout and scaling, by a run of shard_fanout; into target/pgo/bench
#
# A profile fits one compiler and one state of the code, so it is made each time. Takes three times as long as a build.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
what=${1:-}
folder=$root/target/pgo

case $what in
release)
    # The same packages both times, so that both have the same features.
    command=(build --release --package sfu --package signaling --package curtain-dev --package loadtest)
    trained=(--bin curtain-dev --bin loadtest)
    wanted=(--bin curtain-dev --bin sfu --bin signaling)
    # Rooms of some, people who come and go, loss and jitter, one to many. What they get is not the question here.
    train() { # BIN
        local scenario
        for scenario in family churn flaky-links "webinar --participants 30"; do
            echo "pgo: calls of $scenario" >&2
            # shellcheck disable=SC2086  # a name and its flags
            CURTAIN_BIN=$1 "$root/loadtest/local.sh" run --scenario $scenario --duration 15s --quiet >/dev/null ||
                [ $? -ne 2 ]
        done
    }
    ;;
bench)
    command=(bench --package benches --no-run)
    trained=(--bench shard_fanout)
    wanted=(--bench shard_fanout --bench scaling)
    train() { # BIN
        local receivers
        for receivers in 2 10 50; do
            "$1/shard_fanout" --product-only --receivers "$receivers" --seconds 0.5 >&2
        done
    }
    ;;
*)
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac

# The compiler's own, as that of another version may not read its profiles.
profdata=$(rustc --print target-libdir)/../bin/llvm-profdata
if [ ! -x "$profdata" ] && ! rustup component add llvm-tools; then
    echo "pgo: llvm-profdata is missing: rustup component add llvm-tools" >&2
    exit 1
fi
host=$(rustc --version --verbose | sed -n 's/^host: //p')

# Builds in one folder and puts the programs into another. With --target, so that the flag is not for build scripts and macros.
build() { # FOLDER BIN FLAG PROGRAM...
    local in=$1 to=$2 flag=$3 program
    shift 3
    rm -rf "$to" && mkdir -p "$to"
    RUSTFLAGS="${RUSTFLAGS:-} $flag" cargo "${command[@]}" "$@" --locked --target "$host" --target-dir "$in" \
        --message-format json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' |
        while read -r program; do
            # Benchmarks have a hash behind their names.
            cp "$program" "$to/$(basename "$program" | sed 's/-[0-9a-f]\{16\}$//')"
        done
}

cd "$root"
echo "pgo: building with counters" >&2
counts=$folder/counts-$what
build "$folder/train" "$folder/train-$what" "-Cprofile-generate=$counts" "${trained[@]}"
rm -rf "$counts"
train "$folder/train-$what"
"$profdata" merge --output "$folder/$what.profdata" "$counts"
echo "pgo: building by what was counted" >&2
# Cargo does not see that a profile is another one.
rm -rf "$folder/build-$what"
build "$folder/build-$what" "$folder/$what" "-Cprofile-use=$folder/$what.profdata" "${wanted[@]}"
echo "pgo: done: ${folder#"$root/"}/$what" >&2
