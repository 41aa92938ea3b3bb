"""Starting, watching and killing the processes of a small fleet."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Engine, Row, text
from waiting import until

from ponder.domain.batch.endpoint import CHAT
from ponder.domain.batch.submission import Submission
from ponder.embedded.child_process import spawn
from ponder.embedded.postgres import EmbeddedPostgres
from ponder.embedded.redis import EmbeddedRedis
from ponder.jobs.batch.submit import submit
from ponder.ledger.book import check
from ponder.settings import Settings
from ponder.store.database import connect

LEASE_S = 6.0
TICK_S = 0.3
BEST_OF_8 = {"name": "best_of_n", "n": 8, "select": "best"}


class Fleet:
    """A dispatcher and any number of workers, real processes all of them, on one database and one Redis."""

    def __init__(
        self,
        postgres: EmbeddedPostgres,
        redis: EmbeddedRedis,
        database_url: str,
        *,
        model: Path,
        reward_model: Path,
        folder: Path,
    ) -> None:
        self.postgres = postgres
        self.redis = redis
        self.folder = folder
        self.engine: Engine = connect(database_url)
        self._model = model
        self._reward_model = reward_model
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: dict[int, Path] = {}
        self._numbers = itertools.count(1)
        self.environment = os.environ | {
            "PONDER_HOME": str(folder / "home"),
            "PONDER_DATABASE_URL": database_url,
            "PONDER_REDIS_URL": redis.url,
            "PONDER_LEASE_S": str(LEASE_S),
            "PONDER_TICK_S": str(TICK_S),
            "PONDER_SHARD_TOKENS": "1000",
            "OMP_NUM_THREADS": "1",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.engine.dispose()
        # Captured, and shown when the test has failed.
        for log in sorted(self.folder.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")

    def start_dispatcher(self) -> subprocess.Popen[bytes]:
        return self.start("dispatcher")

    def start_worker(self, *arguments: str, metadata_url: str | None = None) -> subprocess.Popen[bytes]:
        """metadata_url: the service that it asks for notices, instead of none."""
        notices = ["--notices", "none"] if metadata_url is None else []
        return self.start(
            "worker", "--model", str(self._model), "--reward-model", str(self._reward_model), "--name", "slow",
            "--machine", "cpu", "--market", "spot", "--device", "cpu", *notices, *arguments,
            PONDER_METADATA_URL=metadata_url or "",
        )  # fmt: skip

    def start_workers(self, number: int, *arguments: str) -> list[subprocess.Popen[bytes]]:
        """Returns when all of them take jobs."""
        workers = [self.start_worker(*arguments) for _ in range(number)]
        until(lambda: self.scalar("SELECT count(*) FROM incarnations WHERE state = 'ready'") == number, 120)
        return workers

    def submit(
        self,
        num_jobs: int = 1,
        *,
        max_tokens: int = 400,
        strategy: dict[str, Any] = BEST_OF_8,
        body: dict[str, Any] | None = None,
        **ponder: Any,
    ) -> str:
        """One batch, as the API would take it; returns its id. body: more fields of every line's body."""
        reference = {"reference": "4", "verifier": {"name": "exact"}}
        lines = [
            {
                "custom_id": f"job-{number}",
                "method": "POST",
                "url": CHAT,
                "body": {
                    "model": "slow",
                    "messages": [{"role": "user", "content": f"What is {number} + {number}?"}],
                    "max_tokens": max_tokens,
                    "seed": number,
                    "ponder": {"strategy": strategy} | reference | ponder,
                }
                | (body or {}),
            }
            for number in range(num_jobs)
        ]
        data = "\n".join(map(json.dumps, lines)).encode()
        number = next(self._numbers)
        with self.engine.begin() as connection:
            connection.execute(text("INSERT INTO tenants (id, name) VALUES ('t', 't') ON CONFLICT DO NOTHING"))
            connection.execute(
                text(
                    "INSERT INTO files (id, tenant_id, filename, purpose, kind, bytes)"
                    " VALUES (:id, 't', 'in.jsonl', 'batch', 'input', :size)"
                ),
                {"id": f"file-{number}", "size": len(data)},
            )
            connection.execute(
                text("INSERT INTO file_chunks (file_id, ordinal, data) VALUES (:id, 0, :data)"),
                {"id": f"file-{number}", "data": data},
            )
            submission = Submission(input_file_id=f"file-{number}", endpoint=CHAT, completion_window="1h")
            return submit(connection, "t", submission, Settings(), batch_id=f"batch_{number}")

    def rows(self, statement: str, **parameters: Any) -> list[Row[Any]]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(statement), parameters))

    def scalar(self, statement: str, **parameters: Any) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(text(statement), parameters).scalar()

    def holder(self) -> subprocess.Popen[bytes]:
        """The worker that holds the one shard there is."""
        pid = until(
            lambda: self.scalar(
                "SELECT pid FROM incarnations JOIN shards ON holder = incarnations.id AND shards.state = 'held'"
            ),
            20,
        )
        return next(process for process in self._processes if process.pid == pid)

    def engine_pid(self, worker: subprocess.Popen[bytes]) -> int:
        """The id of the child in which the engine runs."""
        found = re.search(r'"engine_pid": (\d+)', self.log_of(worker))
        assert found is not None
        return int(found[1])

    def log_of(self, process: subprocess.Popen[bytes]) -> str:
        return self._logs[process.pid].read_text(errors="replace")

    def saved_ids(self) -> dict[tuple[int, int], list[int]]:
        """The generated ids that the saved deltas hold, by job and node; what was told twice would be here twice."""
        ids: dict[tuple[int, int], list[int]] = {}
        for job_id, delta in self.rows("SELECT job_id, delta FROM tree_deltas ORDER BY id"):
            for row in delta.get("nodes", ()):
                if row["node"] > 0:
                    ids.setdefault((job_id, row["node"]), []).extend(row.get("ids", ()))
        return ids

    def num_saved_tokens(self) -> int:
        return sum(map(len, self.saved_ids().values()))

    def settled_ids(self) -> dict[tuple[int, int], list[int]]:
        return {
            (job_id, index): node["ids"]
            for job_id, tree in self.rows("SELECT job_id, tree FROM search_trees")
            for index, node in enumerate(tree["nodes"])
            if index > 0
        }

    def num_pending(self) -> int:
        return int(self.scalar("SELECT count(*) FROM jobs WHERE state = 'pending'"))

    def num_published(self) -> int:
        """Shards that wait for somebody to claim them, and of which a message ought to tell."""
        return int(self.scalar("SELECT count(*) FROM shards WHERE state = 'queued' AND published_at IS NOT NULL"))

    def outcomes(self) -> list[str | None]:
        """How the attempts ended, in the order in which they began."""
        return [row.outcome for row in self.rows("SELECT outcome FROM attempts ORDER BY id")]

    def check_settled_once(self, num_jobs: int) -> None:
        assert self.scalar("SELECT count(*) FROM jobs WHERE state = 'completed'") == num_jobs
        for table in ("results", "usage", "search_trees"):
            assert self.scalar(f"SELECT count(*) FROM {table}") == num_jobs, table
        assert self.scalar("SELECT count(*) FROM attempts WHERE outcome = 'settled'") == num_jobs
        assert self.scalar("SELECT count(*) FROM tree_deltas") == 0

    def check_ledgers(self) -> None:
        """Checks every incarnation, dead or alive."""
        with self.engine.begin() as connection:
            for (incarnation_id,) in connection.execute(text("SELECT id FROM incarnations")).all():
                check(connection, incarnation_id)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        log = self.folder / f"{len(self._processes)}-{arguments[0]}.log"
        process = spawn(
            [sys.executable, "-m", "ponder.cli", *arguments],
            log=log,
            environment=self.environment | environment,
            on_parent_death=signal.SIGKILL,
        )
        self._processes.append(process)
        self._logs[process.pid] = log
        return process
