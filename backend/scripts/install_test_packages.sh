#!/bin/sh
# Debian packages that some tests need, and skip without: installed where that takes no question (as root, with apt).
set -u
command -v bwrap >/dev/null 2>&1 && exit 0
[ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || exit 0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if apt-get update >"$log" 2>&1 &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends bubblewrap >>"$log" 2>&1; then
    echo "setup: installed bubblewrap, for the tests of the sandbox"
else
    echo "setup: bubblewrap cannot be installed, so the tests that need it are skipped: $(tail -n 1 "$log")"
fi
