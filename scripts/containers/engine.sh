# Sourced by ../containers.sh: a Docker Engine of our own under $work, and its removal.

# Debian stable has an engine without BuildKit, so these come from testing, which has Engine 28. Nothing is installed.
FROM_TESTING='docker.io docker-cli docker-compose docker-buildx containerd tini-static debootstrap'
# These link to the C library of the system that they run on.
FROM_HERE='runc iptables libip4tc2 libip6tc2 libxtables12 libnftnl11 libnfnetlink0 libnetfilter-conntrack3 libmnl0'
SAVED_TABLES='filter nat raw mangle'

testing_apt() {
    local tool=$1 apt=$work/apt
    shift
    "$tool" -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State="$apt" \
        -o Dir::State::status="$apt/status" -o Dir::Cache="$apt" -o Acquire::Check-Valid-Until=false "$@"
}

fetch_engine() {
    mkdir -p "$work"/{apt/lists/partial,apt/archives/partial,debs,engine}
    : >"$work/apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $DEBIAN testing main" >"$work/apt/sources.list"
    testing_apt apt-get -qq update
    (cd "$work/debs" && testing_apt apt-get -qq download $FROM_TESTING 2>"$work/fetch.log" && apt-get -qq update \
        && apt-get -qq download $FROM_HERE 2>>"$work/fetch.log") || fail "the packages cannot be had: $(cat "$work/fetch.log")"
    for package in "$work"/debs/*.deb; do dpkg -x "$package" "$work/engine"; done
    ln -sf xtables-nft-multi "$work/engine/usr/sbin/iptables"
    ln -sf xtables-nft-multi "$work/engine/usr/sbin/ip6tables"
    mkdir -p "$work/config/cli-plugins"
    ln -sf "$work"/engine/usr/libexec/docker/cli-plugins/* "$work/config/cli-plugins/"
}

start_engine() {
    ip link show docker0 >/dev/null 2>&1 && fail "this machine has a network docker0 already: an engine runs here."
    export PATH=$work/engine/usr/bin:$work/engine/usr/sbin:$PATH
    export LD_LIBRARY_PATH=$work/engine/usr/lib/x86_64-linux-gnu XTABLES_LIBDIR=$work/engine/usr/lib/x86_64-linux-gnu/xtables
    export DOCKER_HOST=unix://$work/run/docker.sock DOCKER_CONFIG=$work/config
    mkdir -p "$work/run" "$work/data"
    for table in $SAVED_TABLES; do iptables-nft-save -t "$table"; done >"$work/iptables.before"
    forwarding_before=$(cat /proc/sys/net/ipv4/ip_forward)
    dockerd --data-root "$work/data" --exec-root "$work/run/exec" --pidfile "$work/run/docker.pid" --host "$DOCKER_HOST" \
        --ip6tables=false --mtu "$(cat /sys/class/net/"$(ip route show default | awk '{ print $5; exit }')"/mtu)" \
        >"$work/dockerd.log" 2>&1 &
    engine_pid=$!
    until_true 60 "the engine answers" docker info
    docker version --format 'engine {{.Server.Version}}, client {{.Client.Version}}'
    docker compose version
    docker info --format 'storage {{.Driver}}, cgroups v{{.CgroupVersion}}'
}

# Leaves the machine as it was: no process, no network, no packet filter's rule and no file of ours.
remove_engine() {
    [ -n "${engine_pid:-}" ] || return 0
    docker ps --all --quiet | xargs --no-run-if-empty docker rm --force >/dev/null 2>&1
    docker network prune --force >/dev/null 2>&1
    kill "$engine_pid" 2>/dev/null
    wait "$engine_pid" 2>/dev/null
    ip link show docker0 >/dev/null 2>&1 && ip link delete docker0
    iptables-nft-restore <"$work/iptables.before"
    echo "$forwarding_before" >/proc/sys/net/ipv4/ip_forward
    for mount in $(awk -v work="$work/" 'index($2, work) == 1 { print $2 }' /proc/mounts | sort -r); do umount "$mount"; done
    find /sys/fs/cgroup -depth -type d -path '*/docker*' -exec rmdir {} \; 2>/dev/null
    engine_pid=
}
