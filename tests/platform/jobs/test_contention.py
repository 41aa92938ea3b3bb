from __future__ import annotations

import itertools
import random
import threading
import time
from typing import Any

from ponder.errors import Conflict, LeaseLost
from ponder.jobs.dispatching.sweep import sweep


def test_workers_users_and_the_dispatcher_at_the_same_time_never_block_each_other_for_good(world: Any) -> None:
    """Postgres would report deadlocks as errors. There must be none in any order of locking."""
    tenants = [world.tenant() for _ in range(3)]
    batches = [world.batch(60, tenant=tenant, tokens=100) for tenant in tenants for _ in range(4)]
    ends_at = time.monotonic() + 4
    messages: list[int] = []
    errors: list[BaseException] = []

    def keep(step: Any, seed: int) -> None:
        generator = random.Random(seed)
        try:
            while time.monotonic() < ends_at:
                step(generator)
        except BaseException as error:
            errors.append(error)

    def work(generator: random.Random) -> None:
        worker = world.worker(room_tokens=5_000)
        held: list[int] = []
        try:
            for _ in range(generator.randint(1, 6)):
                for shard in [messages.pop() for _ in messages[:2]]:
                    claimed = world.claim(shard, worker)
                    held += [job.job_id for job in claimed.jobs] if claimed else []
                generator.shuffle(held)
                done, held = held[::3], [job for number, job in enumerate(held) if number % 3]
                reply = world.tick(
                    worker,
                    settled=[world.passed(job) for job in done],
                    deltas={job: [{"a": 1}] for job in held},
                    work=world.work(*held, *done),
                )
                held = [job for job in held if job not in reply.dropped]
            world.release(worker) if generator.random() < 0.5 else world.lapse(worker)
        except (LeaseLost, IndexError):
            world.lapse(worker)

    def dispatch(generator: random.Random) -> None:
        messages.extend(world.dispatch())
        world.finish()
        sweep(world.engine, shard_tokens=world.shard_tokens)

    def interfere(generator: random.Random) -> None:
        time.sleep(0.3)
        batch = generator.choice(batches)
        if generator.random() < 0.5:
            try:
                world.cancel(batch)
            except Conflict:
                return
        else:
            world.sql("UPDATE batches SET expires_at = clock_timestamp() WHERE id = :id", id=batch)

    numbers = itertools.count()
    steps = [work, work, work, dispatch, dispatch, interfere]
    threads = [threading.Thread(target=keep, args=(step, next(numbers))) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    for row in world.sql("SELECT id FROM incarnations"):
        world.billed(row.id)
    assert world.sql("SELECT 1 FROM jobs WHERE state <> 'pending'") != []
