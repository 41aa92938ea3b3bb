#!/bin/sh
# What the images are made of:
#   scripts/supply.sh lock    writes requirements/{server,worker}.txt: constraints.txt's versions with the hashes of all their files
#   scripts/supply.sh audit   looks these versions up among known vulnerabilities; reports if OSV cannot be reached
#   scripts/supply.sh sbom    writes sbom/{server,worker}.json, in the form of CycloneDX
# Each tool is installed for the run only, in an environment of its own.
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT

need() {
    "$python" -m venv "$tools" && "$tools/bin/pip" install --quiet --disable-pip-version-check "$1" 2>"$tools/log" || {
        cat "$tools/log" >&2
        echo "ponder: $1 could not be installed: is the package index reachable?" >&2
        exit 1
    }
}

# lock IMAGE EXTRA. Every image can trace. torch has a build for each kind of machine, most of them not on the package
# index: scripts/install.sh installs the one that is chosen, and what CUDA's builds bring along.
lock() {
    "$tools/bin/uv" pip compile pyproject.toml --extra "$2" --extra otel --constraint constraints.txt --universal \
        --python-version 3.11 --generate-hashes --no-header --no-annotate --no-config --quiet --output-file "$tools/$1.txt"
    {
        printf '# Written by `scripts/supply.sh lock`; use it with `pip install --no-deps --require-hashes`.\n'
        [ "$1" = server ] || printf '# Without torch, which `scripts/install.sh torch PYTHON` installs.\n'
        awk '/^[A-Za-z]/ { is_torch = $0 ~ /^(torch|triton|nvidia-|cuda-)/ } !is_torch' "$tools/$1.txt"
    } >"requirements/$1.txt"
}

# A mirror of the package index has no advisories, so pip-audit would report no vulnerabilities. This asks OSV instead.
can_ask_osv() {
    "$python" -c '
import urllib.error, urllib.request
try:
    urllib.request.urlopen("https://api.osv.dev/", timeout=10).close()
except urllib.error.HTTPError:
    pass' >/dev/null 2>&1
}

case ${1:-} in
    lock)
        need 'uv==0.13.9'
        mkdir -p requirements
        lock server server
        lock worker gpu
        ;;
    audit)
        can_ask_osv || {
            echo 'audit: skipped: api.osv.dev cannot be reached, so nothing is known about these versions' >&2
            exit 0
        }
        need 'pip-audit==2.10.1'
        for image in server worker; do
            echo "audit: requirements/$image.txt" >&2
            "$tools/bin/pip-audit" --requirement "requirements/$image.txt" --require-hashes --disable-pip --strict \
                --vulnerability-service osv --progress-spinner off
        done
        ;;
    sbom)
        need 'cyclonedx-bom==7.5.0'
        mkdir -p sbom
        for image in server worker; do
            PYTHONWARNINGS=ignore "$tools/bin/cyclonedx-py" requirements "requirements/$image.txt" --pyproject pyproject.toml \
                --output-reproducible --output-format JSON --output-file "sbom/$image.json"
        done
        ;;
    *)
        sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
