#!/usr/bin/env bash
# Checks files of deploy/ with the programs that read them: alert rules and their unit tests, Prometheus' configuration, the
# kernel settings, the runbook's firewall.
set -euo pipefail
cd "$(dirname "$0")/.."

quietly() { # COMMAND...
    local said
    said=$("$@" 2>&1) || { echo "$said" >&2; echo "files: failed: $*" >&2; exit 1; }
}

quietly promtool check rules prometheus/curtain.rules.yml
quietly promtool check config prometheus/prometheus.yml
# Its rules are mounted beside it: their path does not exist here.
quietly promtool check config --syntax-only containers/prometheus.yml
quietly promtool test rules prometheus/curtain.rules.test.yml
echo "files: alert rules and their unit tests hold ($(grep -c 'eval_time:' prometheus/curtain.rules.test.yml) cases)"

settings=0
while IFS='= ' read -r key value; do
    [[ -z $key || $key == \#* ]] && continue
    [ -e "/proc/sys/${key//.//}" ] || { echo "files: this kernel has no $key" >&2; exit 1; }
    settings=$((settings + 1))
done <sysctl/curtain.conf
[ "$settings" -gt 0 ]
echo "files: the kernel knows all $settings settings"

# The ruleset in the runbook: loaded for real, in a network namespace that ends with the command.
rules=$(sed -n '/^table inet curtain {/,/^}/p' ../docs/runbook.md)
[ -n "$rules" ]
own=(unshare --net)
[ "$(id -u)" -eq 0 ] || own+=(--map-root-user)
quietly "${own[@]}" nft --file - <<<"$rules"
echo "files: the firewall of the runbook loads"
