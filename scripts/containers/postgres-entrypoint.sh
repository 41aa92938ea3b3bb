#!/bin/sh
# What docker-compose.yml asks of the image postgres:18: its user and its database, made at the first start.
set -eu
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA"
    chmod 3775 /var/run/postgresql
    chown -R postgres:postgres /var/lib/postgresql /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf '%s' "$POSTGRES_PASSWORD" >/tmp/pw
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/pw --auth-local=trust --auth-host=scram-sha-256 >/dev/null
    rm /tmp/pw
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl --silent --wait --options='-c listen_addresses=' start
    createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl --silent --wait --mode=fast stop
fi
exec "$@"
