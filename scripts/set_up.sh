#!/usr/bin/env bash
# Makes .venv ready for `make`: virtual environment, editable install, assets.
#
# usage: scripts/set_up.sh EXTRA[,EXTRA …]       for example: scripts/set_up.sh all,dev
#
# A stamp in .venv, written last, records pyproject.toml and the Python it was installed with; while
# both are unchanged the second call only looks (well under 2 s). Interrupted, it is simply redone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly extras=$1
readonly venv_python=.venv/bin/python
readonly stamp=.venv/.set-up-${extras//,/-}
readonly tries=3

main() {
    local wanted
    wanted=$(fingerprint)
    if [[ -z $wanted || ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
        rm -f "$stamp"
        make_virtual_environment
        local quiet=()
        [[ -t 1 ]] || quiet=(--quiet)
        with_retries "installing lightning-plugins[$extras] into .venv" \
            "$venv_python" -m pip install "${quiet[@]}" --disable-pip-version-check --no-input \
            --editable ".[$extras]"
        fingerprint >"$stamp.partial"
        mv "$stamp.partial" "$stamp"
    fi
    if ! "$venv_python" -m lightning_plugins assets install >.venv/.assets.log 2>&1; then
        cat .venv/.assets.log >&2
        exit 2
    fi
    # Licence and terms of what was just installed; silent when all of it was there already.
    grep -v ': installed$' .venv/.assets.log || true
}

# Nothing where .venv does not run: then it is made anew.
fingerprint() {
    "$venv_python" - 2>/dev/null <<'PYTHON' || true
import hashlib, pathlib, sys
project = hashlib.sha256(pathlib.Path("pyproject.toml").read_bytes()).hexdigest()
print(sys.version, project, pathlib.Path.cwd())
PYTHON
}

make_virtual_environment() {
    if "$venv_python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        return
    fi
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3.14 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "set-up: making .venv with $candidate"
            if ! "$candidate" -m venv --clear .venv; then
                explain "$candidate cannot make virtual environments: install its venv module" \
                    "(Debian and Ubuntu: the package python3-venv), then run make again"
            fi
            return
        fi
    done
    explain "no Python 3.11 or newer found: install one so that python3 --version shows it"
}

# with_retries WHAT COMMAND …: three tries, pausing 2-4 and 4-8 seconds between them.
with_retries() {
    local what=$1 attempt pause
    shift
    echo "set-up: $what (several minutes the first time)"
    for ((attempt = 1; attempt <= tries; attempt++)); do
        if "$@" </dev/null; then
            return
        fi
        if ((attempt < tries)); then
            pause=$((2 ** attempt + RANDOM % 2 ** attempt))
            echo "set-up: try $attempt failed; again in $pause s" >&2
            sleep "$pause"
        fi
    done
    explain "$what failed $tries times; pip's own message stands above. Check the network, the" \
        "package index (.venv/bin/pip config list) and the free space (df .), then run make again"
}

explain() {
    echo "set-up: $*" >&2
    exit 2
}

main
