#!/bin/sh
# Asks for known vulnerabilities of what requirements.lock (or the file that is named) installs, by pip-audit in an environment of its own.
# Run by .ci/run.
# Ends with 1 when there is one. A machine that cannot install pip-audit, or whose network does not reach the service that
# knows, has no answer: then it says that it was skipped, and why, and ends with 0.
set -eu
cd "$(dirname "$0")/.."

PIP_AUDIT=2.10.1
LOCK=${1:-requirements.lock}
# Known, looked into, and without effect here: one `--ignore-vuln ID` each, with the reason beside it.
IGNORED=""
PATIENCE_S=300

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

skip() {
    printf '%s\n' "audit: skipped: $1"
    tail -n 3 "$folder/said" 2>/dev/null | cut -c 1-300 | sed 's/^/audit:   /'
    exit 0
}

python=${PYTHON:-.venv/bin/python}
"$python" -m venv "$folder/venv" >"$folder/said" 2>&1 || skip "no environment could be made"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --retries 1 --timeout 15 \
    "pip-audit==$PIP_AUDIT" >"$folder/said" 2>&1 || skip "pip-audit $PIP_AUDIT could not be installed"

# The index's own service first, then the one of OSV: a mirror of the index may have none.
for service in pypi osv; do
    status=0
    # shellcheck disable=SC2086 # options, one by one
    timeout "$PATIENCE_S" "$folder/venv/bin/pip-audit" --requirement "$LOCK" --no-deps --disable-pip --vulnerability-service "$service" \
        --progress-spinner off --timeout 15 --desc off --format json --output "$folder/found" $IGNORED >"$folder/said" 2>&1 || status=$?
    # It ends with 1 for a vulnerability and for a network that is not there: only an answer is written to the file.
    status=0
    "$python" tools/audit_report.py "$folder/found" || status=$?
    case $status in
    0 | 1) exit "$status" ;;
    esac
    rm -f "$folder/found"
done
skip "no service for vulnerabilities gave an answer"
