#!/bin/sh
# Writes backend/requirements.txt from backend/uv.lock; with --check only says whether it is current.
# The list is complete: it installs with `pip install --no-deps -r requirements.txt`.
set -eu

cd -- "$(dirname -- "$0")/.."
uv=$(sh scripts/bootstrap.sh uv)
fresh=$(mktemp)
trap 'rm -f "$fresh" "$fresh.all"' EXIT

# All of it stands in the lock file, so no registry is asked and no setting of one matters.
unset UV_CONFIG_FILE UV_DEFAULT_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_INDEX UV_INDEX_URL
"$uv" export --quiet --locked --offline --no-config --no-dev --no-emit-project --no-hashes \
    --no-header --no-annotate -o "$fresh.all" >/dev/null
{
    echo "# Written by 'make requirements' from uv.lock. Install with: pip install --no-deps -r requirements.txt"
    # 'never' marks what pyproject.toml overrides away.
    sed -e "s/ or sys_platform == 'never'//" -e "/sys_platform == 'never'/d" "$fresh.all"
} >"$fresh"

if [ "${1-}" != --check ]; then
    cat "$fresh" >requirements.txt
elif ! cmp -s "$fresh" requirements.txt; then
    diff requirements.txt "$fresh" || :
    echo "requirements: not what uv.lock says; run make requirements" >&2
    exit 1
fi
