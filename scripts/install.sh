#!/bin/sh
# Makes .venv with everything that one extra of pyproject.toml needs:
#   scripts/install.sh demo|test
# A second run does nothing; an interrupted one resumes where it is safe.
#   scripts/install.sh torch PYTHON
# installs only torch, in the environment of PYTHON. Images and other environments choose their build with it.
#
# PONDER_TORCH chooses the build of torch: auto (the default: cpu on a machine without an NVIDIA GPU, else cuda),
# cpu, cuda (the package index's own), or any other build by the name of its index at PyTorch, such as cu126 or rocm7.0.
set -eu
cd "$(dirname "$0")/.."
extra=${1:-demo}
venv=.venv
stamp=$venv/.ponder-$extra
torch_indexes=https://download.pytorch.org/whl

fail() {
    printf 'ponder: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '        %s\n' "$2" >&2
    exit 1
}

has_nvidia_gpu() {
    [ -e /dev/nvidia0 ] || [ -e /dev/nvidiactl ] || { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; }
}

# Sets `torch`, the build to install, and `torch_why`.
choose_torch() {
    torch=${PONDER_TORCH:-auto}
    torch_why='as PONDER_TORCH says'
    if [ "$torch" = auto ]; then
        if [ "$(uname -s)" != Linux ]; then
            torch=cuda torch_why='the only build for this system'
        elif has_nvidia_gpu; then
            torch=cuda torch_why='this machine has an NVIDIA GPU'
        else
            torch=cpu torch_why='this machine has no NVIDIA GPU'
        fi
    fi
}

# can_reach PYTHON INDEX: whether the index answers within five seconds. pip alone would try for minutes.
can_reach() {
    "$1" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5).close()' "$2/torch/" >/dev/null 2>&1
}

pip_install() {
    # The first argument is the environment's Python.
    pip_python=$1
    shift
    "$pip_python" -m pip install --disable-pip-version-check --no-input --progress-bar off -c constraints.txt "$@"
}

# install_torch PYTHON LOG: installs the chosen build from PyTorch's index. Says what it does in one line. Where that
# index cannot be reached the next step of the install takes what pip is configured to find.
install_torch() {
    choose_torch
    case $torch in
        cpu) torch_size='about 0.2 GB to download' ;;
        *) torch_size='about 2.7 GB to download' ;;
    esac
    other=cpu
    [ "$torch" != cpu ] || other=cuda
    if [ "$torch" != cuda ] && ! can_reach "$1" "$torch_indexes/$torch"; then
        printf "torch: PyTorch's index of %s builds cannot be reached; taking the build that pip finds (2.7 GB if that is CUDA's)\n" \
            "$torch" >&2
        return 0
    fi
    printf 'torch: the %s build, %s, because %s; PONDER_TORCH=%s make … chooses otherwise\n' \
        "$torch" "$torch_size" "$torch_why" "$other" >&2
    [ "$torch" = cuda ] || pip_install "$1" --no-deps --index-url "$torch_indexes/$torch" torch >>"$2" 2>&1 ||
        printf 'torch: that build could not be installed (details in %s); taking the build that pip finds\n' "$2" >&2
}

if [ "$extra" = torch ]; then
    python=${2:?usage: scripts/install.sh torch PYTHON}
    install_torch "$python" /dev/stderr
    pip_install "$python" torch
    exit
fi

# The stamp names what the environment was made from. `test` includes all of `demo`.
wanted=$(printf '%s' "${PONDER_TORCH:-auto}" | cat - pyproject.toml constraints.txt scripts/install.sh | cksum)
# Scripts in an environment name its folder: one that was moved has to be made again.
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
choose_torch
need_mb=3000
[ "$torch" = cpu ] || need_mb=9000
free_mb=$(df -Pm . | awk 'NR == 2 { print $4 }')
[ "$free_mb" -ge "$need_mb" ] || fail \
    "the disk of this folder has $free_mb MB free; the install needs $need_mb MB." \
    "Make room, or clone onto another disk."
[ -w . ] || fail "this folder cannot be written." "Clone into a folder of yours."

# A half-finished environment has no stamp, and is resumed or made again.
trap 'printf "\nponder: the install was interrupted; run it again to go on.\n" >&2; exit 130' INT TERM
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    printf 'making %s with %s\n' "$venv" "$("$python" --version)" >&2
    rm -rf "$venv"
    said=$("$python" -m venv "$venv" 2>&1) || fail "$python could not make a virtual environment." "$said"
    pwd >"$venv/.place"
fi

log=$venv/install.log
: >"$log"
# Another choice than last time needs another build.
if [ "$(cat "$venv/.torch" 2>/dev/null)" != "$torch" ]; then
    "$venv/bin/python" -m pip uninstall --yes torch >>"$log" 2>&1
    install_torch "$venv/bin/python" "$log"
    printf '%s' "$torch" >"$venv/.torch"
fi
printf 'installing ponder[%s]: once, a few minutes (details in %s)\n' "$extra" "$log" >&2
if ! pip_install "$venv/bin/python" -e ".[$extra]" >>"$log" 2>&1; then
    tail -n 5 "$log" >&2
    if grep -qiE 'no space left|errno 28|disk quota' "$log"; then
        fail "the disk is full." "Make room ($need_mb MB), then run it again."
    elif grep -q 'ResolutionImpossible' "$log"; then
        fail "the versions in constraints.txt contradict what the package index offers; the end of $log is above." \
            "Please report it, with that log."
    elif grep -qE 'ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|name resolution|from versions: none' "$log"; then
        fail "the package index cannot be reached." \
            "Check the network or the proxy (HTTPS_PROXY, PIP_INDEX_URL), then run it again; what was fetched is kept."
    fi
    fail "the install failed; the end of $log is above." "Fix that, then run it again."
fi
printf '%s' "$wanted" >"$stamp"
