#!/bin/sh
# What docker-compose.yml asks of the image valkey/valkey: the server runs as a user of its own, in /data.
set -eu
if [ "$1" = valkey-server ] && [ "$(id -u)" = 0 ]; then
    find . ! -user valkey -exec chown valkey '{}' +
    exec setpriv --reuid=valkey --regid=valkey --clear-groups -- "$0" "$@"
fi
umask 0077
exec "$@"
