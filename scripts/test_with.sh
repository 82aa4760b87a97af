#!/usr/bin/env bash
# Runs tests with other releases of some packages. The packages take precedence over those in .venv,
# which is unchanged.
#
# usage: scripts/test_with.sh min|latest PACKAGE[,PACKAGE …] TESTS …
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/retries.sh

readonly which=$1 packages=$2
shift 2
readonly python=.venv/bin/python
readonly overlay=.venv/with-$which-${packages//,/-}

main() {
    local requirements
    requirements=$(wanted)
    with_retries "installing $requirements into $overlay" install_overlay "$requirements"
    export PYTHONPATH=$overlay HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
    "$python" - "$packages" <<'PYTHON'
import sys
from importlib.metadata import version

print(", ".join(f"{name} {version(name)}" for name in sys.argv[1].split(",")))
PYTHON
    "$python" -m pytest "$@"
}

# The lowest release of each package that pyproject.toml allows, or any that it does not exclude.
wanted() {
    "$python" - "$which" "$packages" <<'PYTHON'
import sys
import tomllib
from packaging.requirements import Requirement

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
listed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
specifiers = {r.name: r.specifier for r in map(Requirement, listed)}
for name in sys.argv[2].split(","):
    if sys.argv[1] == "min":
        print(next(f"{name}=={s.version}" for s in specifiers[name] if s.operator == ">="))
    else:
        print(f"{name}{specifiers[name]}")
PYTHON
}

install_overlay() {
    rm -rf "$overlay"
    # shellcheck disable=SC2086 # one word a package
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-input \
        --target "$overlay" $1
}

main "$@"
