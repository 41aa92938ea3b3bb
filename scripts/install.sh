#!/bin/sh
# Makes .venv with everything that one extra of pyproject.toml needs: scripts/install.sh demo|test
# A second run does nothing; an interrupted one is done again from where it is safe.
set -eu
cd "$(dirname "$0")/.."
extra=${1:-demo}
venv=.venv
stamp=$venv/.ponder-$extra
need_mb=3000

fail() {
    printf 'ponder: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '        %s\n' "$2" >&2
    exit 1
}

# What the stamp must say for the environment to be as these files want it. `test` brings everything of `demo`.
wanted=$(cat pyproject.toml constraints.txt scripts/install.sh | cksum)
# Scripts in an environment name its place: a folder that was moved needs a new one.
[ "$(cat "$venv/.place" 2>/dev/null || pwd)" = "$(pwd)" ] || rm -rf "$venv"
for done in "$stamp" "$venv/.ponder-test"; do
    if [ -x "$venv/bin/ponder" ] && [ "$(cat "$done" 2>/dev/null)" = "$wanted" ]; then
        exit 0
    fi
done

find_python() {
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3.14 python3 python; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

python=$(find_python) || fail \
    "Python 3.11 or newer is needed; found $(python3 --version 2>/dev/null || echo none)." \
    "Install it (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python), or name one: make PYTHON=/path/to/python3.12 $extra"
"$python" -c 'import venv, ensurepip' >/dev/null 2>&1 || fail \
    "$python cannot make virtual environments." \
    "Debian, Ubuntu: apt install python3-venv"
free_mb=$(df -Pm . | awk 'NR == 2 { print $4 }')
[ "$free_mb" -ge "$need_mb" ] || fail \
    "the disk of this folder has $free_mb MB free; the install needs $need_mb MB." \
    "Make room, or clone onto another disk."
[ -w . ] || fail "this folder cannot be written." "Clone into a folder of yours."

# What is half-done carries no stamp, and is made again or gone on with.
trap 'printf "\nponder: the install was interrupted; run it again to go on.\n" >&2; exit 130' INT TERM
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    printf 'making %s with %s\n' "$venv" "$("$python" --version)" >&2
    rm -rf "$venv"
    said=$("$python" -m venv "$venv" 2>&1) || fail "$python could not make a virtual environment." "$said"
    pwd >"$venv/.place"
fi

log=$venv/install.log
printf 'installing ponder[%s]: once, a few minutes (details in %s)\n' "$extra" "$log" >&2
if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
    -c constraints.txt -e ".[$extra]" >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    if grep -qiE 'no space left|errno 28|disk quota' "$log"; then
        fail "the disk is full." "Make room ($need_mb MB), then run it again."
    elif grep -qiE 'connection|resolve|timed out|network is unreachable|proxy|ssl|from versions: none' "$log"; then
        fail "the package index cannot be reached." \
            "Check the network or the proxy (HTTPS_PROXY, PIP_INDEX_URL), then run it again; what was fetched is kept."
    fi
    fail "the install failed; the end of $log is above." "Fix that, then run it again."
fi
printf '%s' "$wanted" >"$stamp"
