# Sourced by ../containers.sh: images made of Debian's packages that stand in for those of a registry.
# They do what ponder's files ask of the originals, and no more. All of them trust what this machine trusts.

# bootstrap SUITE FOLDER PACKAGE...: a small Debian in a folder.
bootstrap() {
    local suite=$1 root=$2
    shift 2
    DEBOOTSTRAP_DIR=$work/engine/usr/share/debootstrap timeout 900 "$work/engine/usr/sbin/debootstrap" --variant=minbase \
        ${1:+--include="$(IFS=,; echo "$*")"} "$suite" "$root" "$DEBIAN" >"$work/debootstrap-$suite.log" 2>&1 \
        || fail "debootstrap $suite: $(tail -n 3 "$work/debootstrap-$suite.log")"
    mkdir -p "$root/etc/ssl/certs"
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    # The clock of a mirror that lags behind is no concern of a test.
    echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/99mirror"
}

# python:3.12-slim, with the Python of Debian bookworm: 3.11, for which this machine may have a CPU wheel of torch.
make_python() {
    bootstrap bookworm "$work/bookworm" python3 python3-venv python3-pip ca-certificates
    rm -f "$work"/bookworm/usr/lib/python3*/EXTERNALLY-MANAGED
    ln -sf /usr/bin/python3 "$work/bookworm/usr/local/bin/python"
    tar -C "$work/bookworm" -c . | docker import --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' - standin/python:3.12-slim
    rm -rf "$work/bookworm"
}

# postgres:18 and valkey/valkey:9-alpine, with the packages of Debian testing.
make_services() {
    bootstrap testing "$work/testing"
    tar -C "$work/testing" -c . | docker import - standin/debian:testing
    rm -rf "$work/testing"
    docker build --quiet --tag postgres:18 --file - "$here/containers" <<'END'
FROM standin/debian:testing
RUN apt-get -qq update && apt-get -qq install --no-install-recommends postgresql-18 >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/*
COPY --chmod=755 postgres-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
ENV PATH=/usr/lib/postgresql/18/bin:$PATH PGDATA=/var/lib/postgresql/18/docker LANG=C.UTF-8
VOLUME /var/lib/postgresql
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres", "-c", "listen_addresses=*"]
END
    docker build --quiet --tag valkey/valkey:9-alpine --file - "$here/containers" <<'END'
FROM standin/debian:testing
RUN apt-get -qq update && apt-get -qq install --no-install-recommends valkey-server >/dev/null && rm -rf /var/lib/apt/lists/* \
    && install -d -o valkey -g valkey /data
COPY --chmod=755 valkey-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
WORKDIR /data
VOLUME /data
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["valkey-server"]
END
}
