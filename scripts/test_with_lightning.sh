#!/usr/bin/env bash
# Runs tests with another Lightning than .venv has: it is laid over .venv, which stays as it is.
#
# usage: scripts/test_with_lightning.sh min|latest TESTS …
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/retries.sh

readonly which=$1
shift
readonly python=.venv/bin/python
readonly overlay=.venv/lightning-$which

main() {
    local version
    version=$(wanted_version)
    with_retries "installing Lightning ($which) into $overlay" install_overlay "$version"
    export PYTHONPATH=$overlay HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
    "$python" - <<'PYTHON'
import lightning
import pytorch_lightning

print(f"lightning {lightning.__version__}, pytorch-lightning {pytorch_lightning.__version__}")
PYTHON
    "$python" -m pytest "$@"
}

# The lowest that pyproject.toml allows, or any that it does not exclude.
wanted_version() {
    "$python" - "$which" <<'PYTHON'
import sys
import tomllib
from packaging.requirements import Requirement

with open("pyproject.toml", "rb") as file:
    requirements = map(Requirement, tomllib.load(file)["project"]["dependencies"])
specifiers = next(r for r in requirements if r.name == "lightning").specifier
if sys.argv[1] == "min":
    print(next(f"=={s.version}" for s in specifiers if s.operator == ">="))
else:
    print(specifiers)
PYTHON
}

install_overlay() {
    rm -rf "$overlay"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-input \
        --target "$overlay" "lightning$1" "pytorch-lightning$1"
}

main "$@"
