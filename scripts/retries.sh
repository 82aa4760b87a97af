# with_retries WHAT COMMAND …: three tries with pauses of 2-4 and 4-8 seconds, then an explanation and
# exit code 2. Sourced by the scripts that download.

readonly tries=3

with_retries() {
    local what=$1 attempt pause
    shift
    echo "set-up: $what"
    for ((attempt = 1; attempt <= tries; attempt++)); do
        if "$@" </dev/null; then
            return
        fi
        if ((attempt < tries)); then
            pause=$((2 ** attempt + RANDOM % 2 ** attempt))
            echo "set-up: try $attempt failed; retrying in $pause s" >&2
            sleep "$pause"
        fi
    done
    explain "$what failed $tries times; see pip's message above. Check the network, the" \
        "package index (.venv/bin/python -m pip config list) and the free space (df .), then run" \
        "make again"
}

explain() {
    echo "set-up: $*" >&2
    exit 2
}
