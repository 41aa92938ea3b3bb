# Sourced by ../containers.sh: what an operator does with docker-compose.yml, and the failures that are injected meanwhile.

query() { docker compose exec -T postgres psql --username ponder --dbname ponder --tuples-only --no-align --command "$1"; }
container_of() { docker compose ps --quiet "$1"; }
# client COMMAND...: ponder's command line as on another machine, through the published port.
client() { docker run --rm --network host --env PONDER_BASE_URL=http://127.0.0.1:8765 --env PONDER_API_KEY="$operator_key" \
    --volume "$work/io:/io:ro" ponder-server "$@"; }

# The files that git knows, as they are now: what a clone would have after the next commit.
copy_sources() {
    mkdir -p "$work/ponder" "$work/io"
    (cd "$here/.." && git ls-files --cached --others --exclude-standard -z \
        | while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done \
        | xargs -0 cp --parents --target-directory "$work/ponder")
    wheels=${PIP_FIND_LINKS:-}
    [ -d "$wheels" ] || mkdir -p "${wheels:=$work/no-wheels}"
    cat >"$work/standins.yml" <<END
x-build: &build {build: {additional_contexts: {"python:3.12-slim": "docker-image://standin/python:3.12-slim", wheels: "$wheels"}}}
services: {migrate: *build, api: *build, dispatcher: *build, worker: *build}
END
    cd "$work/ponder" || fail "the sources could not be copied"
    export COMPOSE_FILE=docker-compose.yml:$work/standins.yml
    scripts/init-env.sh && scripts/init-env.sh 2>/dev/null && fail "a second init-env.sh ran"
    [ "$(stat -c %a .env)" = 600 ] || fail "others can read .env"
    operator_key=$(sed -n 's/^PONDER_OPERATOR_KEY=//p' .env)
}

build_images() {
    timeout 1800 docker compose build >"$work/build.log" 2>&1 || fail "the build: $(tail -n 20 "$work/build.log")"
    docker images --format '{{.Repository}} {{.Size}}' | grep '^ponder-'
    docker run --rm --entrypoint sh ponder-server -c '! command -v gcc' || fail "the server image holds a compiler"
    docker run --rm --entrypoint python ponder-worker -c 'import torch; raise SystemExit(torch.version.cuda is not None)' \
        || [ "$wheels" = "$work/no-wheels" ] || fail "the CPU worker holds CUDA"
}

tell_story() {
    say "up: every service becomes healthy"
    docker compose up --detach --wait --wait-timeout 300 >"$work/up.log" 2>&1 || fail "up: $(tail -n 5 "$work/up.log")"
    docker compose ps --format '{{.Service}}: {{.Status}}'
    check_confinement
    local compiled
    compiled=$(compiled_files)
    [ -n "$compiled" ] || fail "the worker kept nothing that it compiled"

    say "up with a wrong password ends and says why"
    refuse_wrong_password

    say "a batch of $NUM_LINES lines, 16 samples each"
    write_lines >"$work/io/lines.jsonl"
    batch=$(client submit /io/lines.jsonl --strategy best_of_n --n 16 2>"$work/submit.log") || fail "submit: $(cat "$work/submit.log")"
    go_on

    say "a worker is stopped: it hands its jobs back and leaves with 0"
    docker compose stop worker >/dev/null 2>&1
    [ "$(docker inspect --format '{{.State.ExitCode}}' "$(docker compose ps --all --quiet worker)")" = 0 ] || fail "it left with an error"
    docker compose start worker >/dev/null 2>&1
    go_on

    say "kill -9 of a worker"
    kill_9 worker
    go_on

    say "kill -9 of Redis"
    kill_9 redis
    go_on

    say "a restart of Postgres"
    docker compose restart postgres >/dev/null 2>&1
    go_on

    say "down and up in the middle"
    docker compose down >/dev/null 2>&1
    docker compose up --detach --wait --wait-timeout 300 >"$work/up.log" 2>&1 || fail "up: $(tail -n 5 "$work/up.log")"
    go_on

    say "two workers"
    docker compose up --detach --wait --wait-timeout 300 --scale worker=2 >/dev/null 2>&1 || fail "the second worker did not come up"
    until_true 120 "both work" both_work
    go_on

    say "a new version in the middle"
    upgrade
    go_on

    say "the rest of the batch"
    until_true 1500 "the batch is settled" is_settled
    client results "$batch" >"$work/results.jsonl" 2>/dev/null
    check_results "$work/results.jsonl"
    query "SELECT outcome || ': ' || count(*) FROM attempts GROUP BY outcome ORDER BY outcome"
    check_ledgers
    [ "$(compiled_files)" = "$compiled" ] || fail "a new worker compiled again: $(compiled_files)"
    ok "no new worker compiled again"

    say "a back-up, everything removed, restored"
    restore_backup
    client results "$batch" 2>/dev/null | cmp - "$work/results.jsonl" || fail "the restored results are others"
    ok "the restored results are the same to the byte"

    say "down, with the volumes"
    docker compose down --volumes --timeout 20 >/dev/null 2>&1 || fail "down"
    [ -z "$(docker ps --all --quiet)$(docker volume ls --quiet --filter label=com.docker.compose.project=ponder)" ] \
        || fail "something was left: $(docker ps --all) $(docker volume ls)"
    ok "nothing was left"
}

check_confinement() {
    local service status
    for service in api dispatcher worker postgres redis; do
        status=$(docker compose exec -T "$service" sh -c 'cat /proc/1/status; ! touch /here 2>/dev/null && echo ReadOnly') \
            || fail "$service can write to its image"
        grep -q 'NoNewPrivs:[[:space:]]*1' <<<"$status" || fail "$service may gain rights"
        grep -q 'CapEff:[[:space:]]*0*$' <<<"$status" || fail "$service has capabilities"
    done
    ! docker compose top redis | grep -q "$(sed -n 's/^REDIS_PASSWORD=//p' .env)" || fail "the process list shows Redis's password"
    [ "$(docker inspect --format '{{index .HostConfig.LogConfig.Config "max-size"}}' "$(container_of worker)")" = 20m ] || fail "logs grow for ever"
    ok "read-only images, no capabilities, rotated logs, no password in a command line"
}

# Name, owner and age of what workers have compiled.
compiled_files() { docker compose exec -T --index 1 worker find /home/ponder/.cache/ponder -name '*.so' -user 10001 -printf '%f %T@\n' | sort; }

refuse_wrong_password() {
    local said
    if said=$(POSTGRES_PASSWORD=wrong timeout 240 docker compose up --detach 2>&1); then
        fail "up was content with a wrong password"
    fi
    grep -q "didn't complete successfully" <<<"$said" || fail "up did not say that migrate failed: $(tail -n 3 <<<"$said")"
    tail -n 1 <<<"$said"
    docker compose logs --no-log-prefix migrate | tail -n 1
    docker compose up --detach --wait --wait-timeout 300 >/dev/null 2>&1 || fail "up does not go on with the right password"
    ok "and goes on with the right one"
}

write_lines() {
    awk -v lines=$NUM_LINES 'BEGIN { for (n = 1; n <= lines; n++) {
        a = n * 7 % 90 + 5; b = n % 17 + 2; c = n * 5 % 40 + 10; d = n % 9 + 1
        printf "{\"custom_id\": \"line-%d\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", \"body\": {\"model\": \"demo\", ", n
        printf "\"messages\": [{\"role\": \"user\", \"content\": \"Compute %d - (%d * (%d - %d) - 6).\"}], ", a, b, c, d
        printf "\"max_tokens\": 200, \"ponder\": {\"reference\": %d}}}\n", a - (b * (c - d) - 6) } }'
}

num_settled() { query "SELECT count(*) FROM jobs WHERE state <> 'pending'"; }
has_gone_on() { [ "$(num_settled)" -ge "$1" ]; }
is_settled() { [ "$(query "SELECT state FROM batches")" = completed ]; }

# Waits until the batch is seen to go on, and fails where it ends too early to be disturbed again.
go_on() {
    until_true 60 "Postgres answers" num_settled
    local before
    before=$(num_settled)
    until_true 300 "more than $before jobs are settled" has_gone_on $((before + NUM_LINES / 50))
    ok "$(num_settled) of $NUM_LINES jobs are settled"
    is_settled && fail "too early: the batch has ended"
    return 0
}

# By its process, as the kernel would: what docker kills it does not restart.
kill_9() {
    local container before
    container=$(container_of "$1")
    before=$(docker inspect --format '{{.RestartCount}}' "$container")
    kill -KILL "$(docker inspect --format '{{.State.Pid}}' "$container")"
    until_true 60 "$1 was started again" restarted "$container" "$before"
}
restarted() { [ "$(docker inspect --format '{{.RestartCount}} {{.State.Status}}' "$1")" = "$(($2 + 1)) running" ]; }

both_work() {
    [ "$(query "SELECT count(DISTINCT a.incarnation_id) FROM attempts a JOIN incarnations i ON i.id = a.incarnation_id
        WHERE i.state = 'ready' AND a.outcome = 'settled'")" = 2 ]
}

# As docs/operations.md says: build, up. An edit of the sources must not install the dependencies again.
upgrade() {
    local started_at=$SECONDS
    echo '# A new version.' >>platform/ponder/alive.py
    timeout 1800 docker compose build >"$work/build.log" 2>&1 || fail "the build: $(tail -n 20 "$work/build.log")"
    ! grep -qE 'Collecting (torch|celery)' "$work/build.log" || fail "an edit installed the dependencies again"
    ok "built in $((SECONDS - started_at)) s"
    docker compose up --detach --wait --wait-timeout 300 --scale worker=2 >"$work/up.log" 2>&1 || fail "up: $(tail -n 5 "$work/up.log")"
}

check_results() {
    grep -o '"custom_id": *"[^"]*"' "$1" | grep -o 'line-[0-9]*' >"$work/ids"
    seq -f 'line-%.0f' $NUM_LINES >"$work/ids.expected"
    [ "$(sort "$work/ids" | uniq -d | wc -l)" = 0 ] || fail "doubled: $(sort "$work/ids" | uniq -d | head -n 5)"
    [ -z "$(comm -13 <(sort "$work/ids") <(sort "$work/ids.expected"))" ] || fail "missing: $(comm -13 <(sort "$work/ids") <(sort "$work/ids.expected") | head -n 5)"
    cmp "$work/ids" "$work/ids.expected" || fail "out of order"
    ok "$NUM_LINES results, in order, once"
}

# Every worker that has left, one way or another: what was booked is what it cost.
check_ledgers() {
    docker compose exec -T api python - <<'END' || fail "a ledger does not balance"
from sqlalchemy import text

from ponder.ledger.book import check
from ponder.settings import Settings
from ponder.store.database import connect

with connect(Settings().database_url.get_secret_value()).begin() as connection:
    ended = connection.execute(text("SELECT id FROM incarnations WHERE state = 'ended'")).scalars().all()
    for incarnation_id in ended:
        check(connection, incarnation_id)
print(f"ok: the ledgers of {len(ended)} workers that left balance")
END
}

# As docs/operations.md says.
restore_backup() {
    docker compose exec -T postgres pg_dump --username ponder --format custom ponder >"$work/ponder.dump" || fail "the back-up"
    docker compose down --volumes >/dev/null 2>&1
    docker compose up --detach --wait postgres >/dev/null 2>&1 || fail "postgres did not come up"
    docker compose exec -T postgres pg_restore --username ponder --dbname ponder --exit-on-error <"$work/ponder.dump" || fail "the restore"
    docker compose up --detach --wait --wait-timeout 300 >/dev/null 2>&1 || fail "up after the restore"
}

show_what_was() {
    say "what was, when it failed"
    tail -n 20 "$work/dockerd.log"
    [ -e "$work/standins.yml" ] || return
    docker compose ps --all
    docker compose logs --tail 20
}
