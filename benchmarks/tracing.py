"""What traces cost: the engine process with and without them, and the export of a span in the parent process.

    python benchmarks/tracing.py --out benchmarks/results/tracing.json

The demo models run on the loop of the engine process, with a best-of-4 for every job, alternately with no job traced
and with all of them. The report of each run is encoded, as for the pipe. An export goes through OpenTelemetry's SDK and
its OTLP exporter to a collector in another process, which answers at once. Figures are processor time, medians over
rounds, so that a busy machine matters less. The last line of standard output is one JSON object.
"""

import asyncio
import multiprocessing
import os
import statistics
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
from circumstances import circumstances, publish
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from ponder.domain.state import Lane
from ponder.otel import OtelTracer
from ponder.trace import Span, job_span, trace_of
from ponder_worker import demo
from ponder_worker.demo.problems import Problem, held_out_problems
from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.job import Job
from ponder_worker.engine_process.learned import Learned
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.engine_process.loading.engines import load
from ponder_worker.engine_process.parent_pipe import Questions
from ponder_worker.protocol import AdmittedJob, EndedSpan, EngineMetrics, Report, encode

WEIGHTS = Path(demo.__file__).parent / "weights"
NUM_EXPORTED = 5_000


@click.command()
@click.option("--per-level", default=8, show_default=True, help="Problems of each of five levels.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(per_level: int, rounds: int, out: Path | None) -> None:
    options = EngineOptions(
        model=str(WEIGHTS / "generator"), reward_model=str(WEIGHTS / "reward"), device="cpu", num_threads=1
    )
    core = EngineCore(load(options), lambda: None)
    problems = held_out_problems(per_level)
    times: dict[bool, list[float]] = {False: [], True: []}
    spans: list[EndedSpan] = []
    for number in range(rounds + 1):
        for is_traced in (False, True) if number % 2 else (True, False):
            spans = []
            cpu_s = play(core, problems, f"{number}{is_traced}", is_traced, spans)
            if number:  # the first round warms up
                times[is_traced].append(cpu_s)
    report = circumstances("what traces cost", "torch", "opentelemetry-sdk", threads=1)
    report["engine"] = {
        "jobs": len(problems),
        "rounds": rounds,
        "cpu_s_untraced": round(statistics.median(times[False]), 3),
        "cpu_s_traced": round(statistics.median(times[True]), 3),
        "ratio": round(statistics.median(on / off for on, off in zip(times[True], times[False], strict=True)), 4),
        "spread_of_ratios": [round(on / off, 4) for on, off in zip(times[True], times[False], strict=True)],
    }
    report["export"] = export_cost()
    publish(report, out)


def play(core: EngineCore, problems: list[Problem], tenant: str, is_traced: bool, spans: list[EndedSpan]) -> float:
    """Returns the processor seconds of all jobs. Every run is its own tenant, so that runs share no pages."""
    admitted = [
        AdmittedJob(
            at,
            tenant,
            tenant,
            Lane.BATCH,
            {
                "messages": [{"role": "user", "content": problem.prompt}],
                "sampling": {"temperature": 1.0, "seed": at, "stop": []},
                "strategy": {"name": "best_of_n", "n": 4},
            },
            attempt_span=at + 1 if is_traced else None,
        )
        for at, problem in enumerate(problems)
    ]
    began = time.process_time()
    asyncio.run(live(core, admitted, spans))
    encode(Report(1, False, (), 0.0, {}, (), 0, 0, False, EngineMetrics(), spans=tuple(spans)))
    return time.process_time() - began


async def live(core: EngineCore, admitted: list[AdmittedJob], spans: list[EndedSpan]) -> None:
    """Runs the jobs as the engine process does."""
    jobs: dict[int, Job] = {}

    def forget(job: Job) -> None:
        del jobs[job.id]

    for one in admitted:
        job = Job(one, core, Questions(lambda ask: None), Learned(), forget, on_span=spans.append)
        jobs[job.id] = job
        job.start()
    while jobs:
        await asyncio.sleep(0)
        if core.has_work:
            core.step()
            for job in list(jobs.values()):
                job.look()


def export_cost() -> dict[str, Any]:
    """Returns what a span costs the thread that exports it, and what it costs all threads of the process."""
    ours, theirs = multiprocessing.Pipe()
    collector = multiprocessing.get_context("spawn").Process(target=collect, args=(theirs,), daemon=True)
    collector.start()
    endpoint = f"http://127.0.0.1:{ours.recv()}/v1/traces"
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint), max_queue_size=2 * NUM_EXPORTED)
    tracer = OtelTracer(processor, {"service.name": "benchmark"})
    trace_id = trace_of("batch_0", 1)
    about = {f"ponder.{name}": "a value" for name in ("job.id", "batch.id", "model", "machine", "market", "tenant.id")}
    own, whole = time.thread_time(), time.process_time()
    for _ in range(NUM_EXPORTED):
        tracer.export(Span("tick", trace_id, job_span(trace_id), 1.0, 2.0, attributes=about))
    own = time.thread_time() - own
    processor.force_flush()
    whole = time.process_time() - whole
    collector.kill()
    return {
        "spans": NUM_EXPORTED,
        "thread_us_per_span": round(own / NUM_EXPORTED * 1e6, 1),
        "process_us_per_span": round(whole / NUM_EXPORTED * 1e6, 1),
    }


def collect(port: Connection) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    port.send(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    main()
