#!/usr/bin/env bash
# Runs docker-compose.yml as an operator would, and breaks it: for developers, on Debian, as root, in ten to twenty minutes.
#
#   scripts/containers.sh
#
# It unpacks Docker Engine 28 beside the system, makes base images of Debian's packages (no registry of images is needed),
# builds ponder's images, hands in a batch, and disturbs it: workers stopped and killed, Redis killed, Postgres restarted,
# everything taken down and up, a second worker, a new version, a back-up restored. It fails unless every result is there,
# in order, once. It needs the package indexes of Debian and Python, and 16 GB in $TMPDIR (/var/tmp). Everything that it
# makes is removed at its end. PIP_INDEX_URL and PIP_FIND_LINKS, a folder of wheels, are used where they are set.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${TMPDIR:-/var/tmp}/ponder-containers
# The mirror that this machine's apt uses.
DEBIAN=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep --max-count 1 '/debian/$')
NUM_LINES=3000
export COMPOSE_PROGRESS=plain

say() { printf '\n== %s  %s\n' "$(date +%T)" "$*"; }
ok() { printf 'ok: %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}
# until_true SECONDS WHAT COMMAND...: waits for a command to succeed, for so long at most.
until_true() {
    local give_up_at=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $give_up_at ] || fail "waited in vain for: $what"
        sleep 1
    done
}

. "$here/containers/engine.sh"
. "$here/containers/bases.sh"
. "$here/containers/story.sh"

# All that is made is in one file, with a file system of its own: that is removed at once, and fills no other disk.
make_room() {
    local free
    free=$(df --output=avail --block-size=1G "${work%/*}" | tail -n 1)
    [ "$free" -ge 16 ] || fail "${work%/*} has $free GB free; 16 are needed."
    truncate --size 24G "$work.disk"
    mkfs.ext4 -q -m 0 -E nodiscard "$work.disk"
    mkdir -p "$work"
    mount -o loop "$work.disk" "$work" || fail "a file cannot be mounted here."
}

main() {
    say "Docker Engine, beside the system"
    fetch_engine
    start_engine
    say "Base images of Debian's packages"
    make_python
    make_services
    say "The images of ponder"
    copy_sources
    build_images
    say "The story"
    tell_story
    say "all of it held"
}

clean_up() {
    local code=$?
    trap - EXIT INT TERM
    set +e
    [ $code = 0 ] || show_what_was
    say "cleaning up"
    remove_engine
    cd / && umount "$work"
    rm -rf "$work" "$work.disk"
    exit $code
}

[ "$(id -u)" = 0 ] || fail "root is needed: an engine is started."
[ -n "$DEBIAN" ] || fail "apt names no mirror of Debian: this needs Debian (run apt-get update first)."
[ "$(uname -m)" = x86_64 ] || fail "this runs on x86-64 only."
[ -r /etc/debian_version ] || fail "Debian is needed: the engine and the bases are made of its packages."
[ ! -e "$work.disk" ] || fail "$work exists: another run uses it, or was killed; see that no dockerd of it runs and remove it."
trap clean_up EXIT
make_room
trap 'exit 130' INT TERM
main
