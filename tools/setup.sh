#!/bin/sh
# Creates .venv from a bare checkout: finds a Python, installs the pinned uv into it, and lets uv install
# the locked dependencies (hashes checked) and this project, editable. Needs git's checkout and Python
# >= 3.11 with venv; no compiler, no root. Run by `make setup`; does nothing when nothing has changed.
set -eu
cd "$(dirname "$0")/.."

VENV=.venv
STAMP=$VENV/.setup-stamp

say() { printf '%s\n' "setup: $*"; }
die() { printf '%s\n' "setup: $*" >&2; exit 1; }

# A name on PATH proves nothing (version managers leave shims that only print an error): run it.
usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14; do
        if usable "$name"; then printf '%s' "$name"; return 0; fi
    done
    return 1
}

# Everything that decides what is in the venv.
fingerprint() { cat requirements.lock requirements-bootstrap.lock pyproject.toml tools/setup.sh | cksum; }

wanted="$(fingerprint) $(pwd)"
if [ -x "$VENV/bin/python" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ] && usable "$VENV/bin/python"; then
    exit 0
fi

# A venv does not survive a move of its folder or an upgrade of its Python: then start over.
if [ -e "$VENV" ] && ! { usable "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; }; then
    say "the old $VENV does not work any more: making a new one"
    rm -rf "$VENV"
fi
if [ ! -e "$VENV" ]; then
    python=$(find_python) || die "no Python >= 3.11 found (tried \$PYTHON, python3, python3.11 to python3.14).
       Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python)
       or name one: make setup PYTHON=/path/to/python3"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || die "$("$python" -V) at $(command -v "$python") has no venv/ensurepip.
       Install it (Debian, Ubuntu: apt install python3-venv) or name another Python: make setup PYTHON=..."
    say "$("$python" -V) -> $VENV"
    "$python" -m venv "$VENV" || { rm -rf "$VENV"; die "'$python -m venv' failed; its message is above"; }
fi

say "installing the pinned uv" # and setuptools, which builds dkimpy: it comes as source (pure Python) alone
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
    --only-binary :all: -r requirements-bootstrap.lock
say "installing the locked dependencies"
VIRTUAL_ENV="$(pwd)/$VENV"
export VIRTUAL_ENV
"$VENV/bin/uv" pip sync --quiet --require-hashes --no-build-isolation requirements.lock
# The build backend is locked above, so this step fetches nothing.
"$VENV/bin/uv" pip install --quiet --no-deps --no-build-isolation --offline --editable .

printf '%s' "$wanted" >"$STAMP"
say "done: $("$VENV/bin/python" -V) in $VENV"
