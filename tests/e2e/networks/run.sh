#!/bin/sh
# Calls of real Chromium over shaped links, in network namespaces: run.sh [CASE...]. Prints one JSON object a line. As root,
# or where user namespaces are allowed. Nothing leaves the namespaces.
set -eu
here=$(dirname "$0")
# Whatever else this machine does must not look like a bad network.
renice -n -10 -p $$ >/dev/null 2>&1 || true
if [ "$(id -u)" = 0 ]; then
    exec unshare --net -- "${NODE:-node}" "$here/run.js" "$@"
fi
exec unshare --map-root-user --net -- "${NODE:-node}" "$here/run.js" "$@"
