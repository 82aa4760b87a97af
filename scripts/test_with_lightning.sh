#!/usr/bin/env bash
# Runs tests with another Lightning than .venv has: it is laid over .venv, which stays as it is.
#
# usage: scripts/test_with_lightning.sh min|latest TESTS …
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly which=$1
shift
readonly python=.venv/bin/python
readonly overlay=.venv/lightning-$which

if [[ $which == min ]]; then
    version="==$("$python" - <<'PYTHON'
import tomllib
from packaging.requirements import Requirement

with open("pyproject.toml", "rb") as file:
    requirements = map(Requirement, tomllib.load(file)["project"]["dependencies"])
lightning = next(r for r in requirements if r.name == "lightning")
print(next(s.version for s in lightning.specifier if s.operator == ">="))
PYTHON
)"
else
    # The two excluded releases were malicious uploads.
    version='!=2.6.2,!=2.6.3'
fi

rm -rf "$overlay"
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$overlay" \
    "lightning$version" "pytorch-lightning$version"
PYTHONPATH=$overlay "$python" -c 'import lightning; print("Lightning", lightning.__version__)'
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 PYTHONPATH=$overlay "$python" -m pytest "$@"
