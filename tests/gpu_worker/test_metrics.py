from __future__ import annotations

import subprocess
import sys

from prometheus_client import CollectorRegistry, generate_latest

from ponder_worker.metrics import WorkerMetrics


def test_metrics_are_read_when_somebody_asks() -> None:
    numbers = {"held_jobs": 1.0}
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(lambda: numbers))
    numbers["held_jobs"] = 7.0
    assert "ponder_worker_held_jobs 7.0" in generate_latest(registry).decode()


def test_the_parent_process_holds_no_torch() -> None:
    modules = "ponder_worker.main, ponder_worker.worker, ponder_worker.verify"
    program = f"import sys, {modules}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
