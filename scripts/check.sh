#!/usr/bin/env bash
# Runs every static check on the wheel and sdist built from a clean copy of the tree.
#
# mypy and import-linter do not follow the mapping of the four top-level folders, so they read the
# unpacked wheel. All checks run, also after a failure; the exit code is 1 if any check failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly root=$PWD
readonly bin=$root/.venv/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
readonly export=$work/export wheel=$work/wheel
failed=()

main() {
    export_tree
    cd "$export"
    check "ruff check" "$bin/python" -m ruff check --no-cache .
    check "ruff format" "$bin/python" -m ruff format --no-cache --check .
    "$bin/python" -m build --no-isolation --outdir "$work/dist" . >"$work/build.log" 2>&1 || {
        cat "$work/build.log"
        exit 1
    }
    "$bin/python" -m zipfile -e "$work"/dist/*.whl "$wheel"
    check "twine check" "$bin/python" -m twine check --strict "$work"/dist/*
    cd "$wheel"
    check "mypy" "$bin/python" -m mypy --config-file "$export/pyproject.toml" \
        --cache-dir "$root/.mypy_cache/wheel" lightning_plugins
    check "import-linter" lint_imports
    if grep -rq --include='*.py' '>>> ' lightning_plugins; then
        check "doctest" run_doctests
    fi
    cd "$root"
    check "pip check" "$bin/python" -m pip check
    check "no machine path" "$bin/python" -m pytest -q -p no:cacheprovider \
        tests/packaging/test_no_machine_paths.py
    if ((${#failed[@]})); then
        echo "make check: failed: ${failed[*]}"
        exit 1
    fi
    echo "make check: clean"
}

# Files that git tracks or would track, with their current contents; without deleted files.
export_tree() {
    mkdir "$export"
    git ls-files -co --exclude-standard -z | while IFS= read -r -d '' file; do
        if [[ -f $file ]]; then
            printf '%s\0' "$file"
        fi
    done | tar --null --files-from=- --create --file=- | tar --extract --file=- -C "$export"
}

lint_imports() {
    python_on_wheel -c '
import sys
from importlinter.cli import lint_imports

sys.exit(lint_imports(config_filename=sys.argv[1], no_cache=True))
' "$export/pyproject.toml"
}

run_doctests() {
    HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 python_on_wheel -m pytest -c /dev/null -p no:cacheprovider \
        -q --doctest-modules lightning_plugins
}

# -S disables the editable install's finder: files missing from the wheel must not be found.
python_on_wheel() {
    local site_packages
    site_packages=$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    PYTHONPATH=$wheel:$site_packages "$bin/python" -S "$@"
}

check() {
    local what=$1
    shift
    echo "── $what"
    "$@" || failed+=("$what;")
}

main
