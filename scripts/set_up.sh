#!/usr/bin/env bash
# Prepares .venv for `make`: virtual environment, editable install, assets.
#
# usage: scripts/set_up.sh EXTRA[,EXTRA …]       for example: scripts/set_up.sh all,dev
#
# A stamp in .venv, written last, records pyproject.toml, the Python and the folder of the
# installation. If all are unchanged, the next call only checks them (well under 2 s). An interrupted
# set-up starts again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/retries.sh

readonly extras=$1
readonly venv_python=.venv/bin/python
readonly stamp=.venv/.set-up-${extras//,/-}

main() {
    local wanted
    wanted=$(fingerprint)
    if [[ -z $wanted || ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
        rm -f "$stamp"
        make_virtual_environment
        with_retries "installing lightning-plugins[$extras] into .venv" install_editable
        fingerprint >"$stamp.partial"
        mv "$stamp.partial" "$stamp"
    fi
    install_assets
}

# Prints nothing if .venv does not run; it is then created again.
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
            echo "set-up: creating .venv with $candidate; the set-up takes several minutes and 7 GB"
            if ! "$candidate" -m venv --clear .venv; then
                explain "$candidate cannot create virtual environments: install its venv module" \
                    "(Debian and Ubuntu: the package python3-venv), then run make again"
            fi
            return
        fi
    done
    explain "no Python 3.11 or newer found: install one so that python3 --version prints it"
}

# Silences the warning of setuptools that the checkout's folders may take precedence over the editable
# install; tests/packaging/test_import_situations.py tests that they do.
install_editable() {
    local verbosity=--quiet
    if [[ -t 1 ]]; then
        verbosity=--progress-bar=on
    fi
    PYTHONWARNINGS=ignore "$venv_python" -m pip install "$verbosity" --no-input \
        --disable-pip-version-check --editable ".[$extras]"
}

# Includes retries. Prints licence and terms of new assets; silent if all are installed.
install_assets() {
    if ! "$venv_python" -m lightning_plugins assets install >.venv/.assets.log; then
        cat .venv/.assets.log >&2
        exit 2
    fi
    grep -v ': installed$' .venv/.assets.log || true
}

main
