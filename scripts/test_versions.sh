#!/usr/bin/env bash
# Runs tests in an environment of its own, .venv/of-min or .venv/of-latest: with the lowest releases of all
# requirements that pyproject.toml allows, torch included, or with the newest. Takes about 6 GB each.
#
# usage: scripts/test_versions.sh min|latest TESTS …
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/retries.sh

readonly which=$1
shift
readonly environment=.venv/of-$which
readonly python=$environment/bin/python
readonly extras=vision,text,recsys,report,laser,geo

main() {
    .venv/bin/python -m venv "$environment"
    wanted >"$environment/constraints.txt"
    with_retries "installing the $which releases into $environment" install_releases
    "$python" -m pip list | grep -iE '^(torch|lightning|torchmetrics|transformers|datasets|numpy) '
    HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$python" -m pytest "$@"
}

# The lowest release of each requirement; nothing for the newest.
wanted() {
    .venv/bin/python - "$which" "$extras" <<'PYTHON'
import sys
import tomllib
from packaging.requirements import Requirement
from packaging.version import Version

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
listed = [*project["dependencies"], *(r for name in sys.argv[2].split(",") for r in extras[name])]
floors = {}
for requirement in map(Requirement, listed):
    for one in requirement.specifier:
        if one.operator == ">=":
            floors.setdefault(requirement.name, []).append(Version(one.version))
for name, versions in floors.items():
    if sys.argv[1] == "min":
        print(f"{name}=={max(versions)}")
PYTHON
}

install_releases() {
    "$python" -m pip install --quiet --disable-pip-version-check --no-input --upgrade \
        --constraint "$environment/constraints.txt" --editable ".[$extras,dev]"
}

main "$@"
