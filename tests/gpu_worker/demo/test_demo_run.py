from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from ponder.client import Client
from ponder.errors import NotFound, Unreachable
from ponder_worker.demo.demo_run import STRATEGIES, DemoRun


class Server:
    """The part of the API that a submission needs. It fails after `num_calls` calls."""

    def __init__(self, num_calls: int = 1_000) -> None:
        self.num_calls = num_calls
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.cancelled: list[str] = []

    def _answer(self) -> None:
        self.num_calls -= 1
        if self.num_calls < 0:
            raise Unreachable("gone")

    def upload(self, lines: Callable[[], Iterable[bytes]], filename: str) -> dict[str, Any]:
        self._answer()
        file_id = f"file-{len(self.files)}"
        self.files[file_id] = b"".join(lines())
        return {"id": file_id}

    def submit(self, input_file_id: str, *, idempotency_key: str, **options: Any) -> dict[str, Any]:
        self._answer()
        self.batches.setdefault(idempotency_key, {"id": f"batch_{len(self.batches)}", "file": input_file_id, **options})
        return self.batches[idempotency_key]

    def batch(self, batch_id: str) -> dict[str, Any]:
        for batch in self.batches.values():
            if batch["id"] == batch_id:
                return batch
        raise NotFound(batch_id)

    def cancel(self, batch_id: str) -> dict[str, Any]:
        batch = self.batch(batch_id)
        self.cancelled.append(batch_id)
        return batch


SERVED = {"demo": "f0", "demo-large": "f1"}


def demo_run(folder: Path, run_id: str = "r1") -> DemoRun:
    return DemoRun.find(folder, run_id=run_id, problems_per_level=2)


def test_every_strategy_gets_the_same_problems(tmp_path: Path) -> None:
    server = Server()
    demo_run(tmp_path).submit(cast(Client, server), SERVED)
    texts = [
        content.replace(name.encode(), b"") for name, content in zip(STRATEGIES, server.files.values(), strict=True)
    ]
    assert len(set(texts)) == 1
    lines = [json.loads(line) for line in texts[0].splitlines()]
    assert [line["custom_id"] for line in lines] == [f"/level-{level}/{n}" for level in range(1, 6) for n in range(2)]
    assert all(line["body"]["ponder"]["reference"].lstrip("-").isdigit() for line in lines)
    assert [batch["options"]["verifier"] for batch in server.batches.values()] == [{"name": "exact"}] * 5


@pytest.mark.parametrize("num_calls", range(11))
def test_a_second_start_goes_on_where_the_first_broke_and_submits_nothing_twice(tmp_path: Path, num_calls: int) -> None:
    server = Server(num_calls)
    try:
        demo_run(tmp_path).submit(cast(Client, server), SERVED)
    except Unreachable:
        server.num_calls = 1_000
        demo_run(tmp_path, "r2").submit(cast(Client, server), SERVED)
    assert len(server.files) == 5
    assert len(server.batches) == 5
    assert len({key.split("-")[1] for key in server.batches}) == 1


def test_a_finished_run_is_followed_by_a_fresh_one(tmp_path: Path) -> None:
    first = demo_run(tmp_path)
    first.submit(cast(Client, Server()), SERVED)
    assert demo_run(tmp_path, "r2").run_id == "r1"
    first.finish()
    assert demo_run(tmp_path, "r2").run_id == "r2"


def test_a_run_goes_on_only_with_the_same_weights_and_where_its_batches_are(tmp_path: Path) -> None:
    server = Server()
    demo_run(tmp_path).submit(cast(Client, server), SERVED)
    assert demo_run(tmp_path).can_go_on(cast(Client, server), SERVED)
    assert not demo_run(tmp_path).can_go_on(cast(Client, server), SERVED | {"demo-large": "f2"})
    assert not demo_run(tmp_path).can_go_on(cast(Client, Server()), SERVED)


def test_a_run_that_is_given_up_is_cancelled_and_followed_by_a_fresh_one(tmp_path: Path) -> None:
    server = Server()
    first = demo_run(tmp_path)
    first.submit(cast(Client, server), SERVED)
    server.batches.popitem()
    first.abandon(cast(Client, server))
    assert server.cancelled == [f"batch_{number}" for number in range(len(STRATEGIES) - 1)]
    assert not demo_run(tmp_path, "r2").is_begun


def test_a_run_that_cannot_be_read_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "unfinished.json").write_text('{"run_id": ')
    assert demo_run(tmp_path, "r2").run_id == "r2"


def test_without_a_worker_for_the_large_model_there_is_no_cascade(tmp_path: Path) -> None:
    server = Server()
    demo_run(tmp_path).submit(cast(Client, server), {"demo": "f0"})
    names = [batch["options"]["strategy"]["name"] for batch in server.batches.values()]
    assert names == [name for name in STRATEGIES if name != "cascade"]
