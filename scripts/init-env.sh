#!/bin/sh
# Writes the secrets of docker-compose.yml into .env beside it, once: the database keeps the password that it was made with.
set -eu
cd "$(dirname "$0")/.."
if [ -e .env ]; then
    echo "ponder: .env exists and is left as it is. The data in the volumes fit its secrets; remove it only with them." >&2
    exit 1
fi
secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
cat >.env <<END
# Secrets of this server, made by scripts/init-env.sh. Keep a copy with your back-ups; see docs/operations.md.
POSTGRES_PASSWORD=$(secret)
REDIS_PASSWORD=$(secret)
# The first operator's key: PONDER_API_KEY for \`ponder tenant\` and \`ponder key\`.
PONDER_OPERATOR_KEY=pk-$(secret)
# The secrets of webhooks are made from it.
PONDER_WEBHOOK_KEY=$(secret)

# Which workers run on this machine: demo (a CPU and the models that come with ponder), autoscale (the same as needed), gpu,
# or none.
COMPOSE_PROFILES=demo
END
echo "ponder: the secrets are in $(pwd)/.env, for you alone to read. Next: docker compose up -d --build --wait" >&2
