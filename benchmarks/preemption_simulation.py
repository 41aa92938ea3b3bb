"""Does the simulation of fleets agree with real workers? It replays the run that benchmarks/preemption.py recorded.

    python benchmarks/preemption_simulation.py benchmarks/results/preemption.json \\
        --lengths benchmarks/results/preemption_brief.json --out benchmarks/results/preemption_simulated.json

The same workers are taken at the same moments, by the same draws, from as many simulated workers with the same leases,
ticks and turns of the autoscaler. Jobs and tokens are those of the run. A worker's speed and the time that it loads are
what the run's ledgers say, and a brief run (`preemption.py --jobs 60 --compress 200 --noticed 0.9`) tells what this one
did not record: how long samples are, how many grow at a time, and how long a worker takes to register. The figures
stand beside the real ones, over several draws of lengths. The last line of standard output is one JSON object.
"""

import itertools
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import click
from circumstances import circumstances, publish
from fleet_arm import Arm, Outcome, Takings, Times
from fleet_load import DAY_S, HOUR_S, Job, Load
from fleet_machines import Machine, Speed
from fleet_simulation import Simulation
from fleet_tables import percent, spread, table, whole
from preemption import FLEET_INTERVAL_S, SAMPLES, TRACE, removals_of
from preemption_facts import percentiles

from ponder.fleet.problem import Bounds
from ponder.settings import Settings

SWEEP = Path(__file__).parent / "results" / "engine_sweep.json"
_MARKET = "on_demand"
_NANODOLLARS_PER_HOUR = 10**8
"""The price of the machine `cpu` in the price book, with which dollars are made seconds."""


@dataclass(frozen=True, slots=True)
class Run:
    """A real run, and the lengths and times of a brief one."""

    found: Mapping[str, Any]
    brief: Mapping[str, Any]

    def seconds(self, kind: str) -> float:
        """Returns the worker seconds that the ledgers booked as a kind."""
        billed_s = self.found["nanodollars"] * HOUR_S / _NANODOLLARS_PER_HOUR
        return float(billed_s * self.found["share_of_dollars"].get(kind, 0.0))

    @property
    def speed(self) -> Speed:
        """The speed of a worker. The tokens of prompts are as fast as those that were computed again."""
        slots = round(self.brief["measured"]["running"])
        prefill = self.found["recomputed_tokens"] / self.seconds("recomputed")
        work_s = self.seconds("work") - self.found["jobs"] * self.prompt_tokens / prefill
        measured = self.brief["measured"]
        decode = self.found["generated_tokens"] / work_s
        return Speed(
            slots, decode / slots, prefill / slots, self.calm * measured["registers_in_s"], self.loading_s,
            alone_factor(slots),
        )  # fmt: skip

    @property
    def loading_s(self) -> float:
        return self.seconds("loading") / int(self.found["incarnations"])

    @property
    def calm(self) -> float:
        """How long processes of the run took to start, as a share of those of the brief one: less ran beside it."""
        measured = self.brief["measured"]
        return float(self.loading_s / (measured["ready_in_s"] - measured["registers_in_s"]))

    @property
    def gap_s(self) -> float:
        """The time between machines that the trace takes at the same moment, to find and end the worker of each."""
        times = [taken["at_s"] for taken in self.brief["taken"]]
        return self.calm * min(later - at for at, later in itertools.pairwise(times))

    @property
    def prompt_tokens(self) -> int:
        return round(self.brief["measured"]["prompt_tokens"] / self.brief["jobs"])

    def load(self, arrives_s: float, chance: Random) -> Load:
        """Draws the jobs, with as many tokens in all as the real ones had."""
        percentiles, num_jobs = self.brief["measured"]["sample_tokens"], self.found["jobs"]
        drawn = [[chance.choice(percentiles) for _ in range(SAMPLES)] for _ in range(num_jobs)]
        scale = self.found["generated_tokens"] / sum(sum(lengths) for lengths in drawn)
        estimated = round(self.brief["measured"]["estimated_tokens"])
        return Load(
            tuple(
                Job(
                    arrives_s, arrives_s + DAY_S, "batch", "batch", self.prompt_tokens,
                    tuple(max(round(length * scale), 1) for length in lengths), estimated,
                )
                for lengths in drawn
            ),
            0.0,
        )  # fmt: skip

    def takings(self, trace: str, begins_s: float) -> Takings:
        """Returns what took workers away, which draws as the real run did while it has as many workers to draw from."""
        found = self.found
        times: list[float] = []
        for at in removals_of(trace, found["hour"]):
            times.append(max(begins_s + at / found["compress"], times[-1] + self.gap_s if times else 0.0))
        return Takings(tuple(times), found["noticed"], Random(found["seed"]))


def alone_factor(slots: int) -> float:
    """Returns how many times as fast samples grow where one job has a worker, by the throughput of the engine."""
    swept = json.loads(SWEEP.read_text())["results"]["small, swept"]
    rates = sorted(
        (one["problems"] * one["siblings"], one["ponder"]["tokens_per_s"]) for one in swept if one["prompt"] == 64
    )
    few, many = (_interpolated(rates, number) for number in (SAMPLES, slots))
    return few / SAMPLES / (many / slots)


def _interpolated(points: Sequence[tuple[float, float]], at: float) -> float:
    """Returns a value between neighbours, on a logarithmic scale of `at`."""
    (low, before), (high, after) = next(
        (left, right) for left, right in itertools.pairwise(points) if left[0] <= at <= right[0]
    )
    return before + (after - before) * math.log(at / low) / math.log(high / low)


def simulate(run: Run, trace: str, chance: Random) -> tuple[Outcome, float]:
    """Returns what becomes of the run in the simulation, and when its batch was submitted."""
    speed, found = run.speed, run.found
    times = Times(
        found["tick_s"], found["lease_s"], FLEET_INTERVAL_S,
        gone_within_s=run.seconds("draining") / max(found["kills_with_notice"], 1),
        shard_tokens=Settings.model_fields["shard_tokens"].default,
    )  # fmt: skip
    machine = Machine("cpu", {_MARKET: _NANODOLLARS_PER_HOUR}, speed, notice_s=0.0)
    begins_s = math.ceil(speed.boot_s + speed.loading_s)
    bounds = Bounds(found["workers"], found["workers"])
    takings = run.takings(trace, begins_s)
    load = run.load(begins_s, chance)
    arm = Arm("ponder", markets=(_MARKET,))
    return Simulation(arm, machine, load, bounds, takings=takings, times=times).run(), begins_s


def figures(run: Run, outcome: Outcome, begins_s: float) -> dict[str, Any]:
    """Returns the figures that preemption.py has of the real run. A bill goes from registering to the lease's end."""
    account, speed = outcome.account, run.speed
    billed_s = account.billed_s - account.booting_s + account.leases_s
    wasted_s = account.wasted_s + account.leases_s
    loading_s = account.loading_s - account.booting_s
    return {
        "took_s": outcome.lasted_s - begins_s,
        "kills": len(outcome.recoveries),
        "kills_with_notice": sum(one.with_notice for one in outcome.recoveries),
        "settled": outcome.num_jobs - len(outcome.missed),
        "recomputed_tokens": account.recomputed_s * speed.slots * speed.prefill_tokens_per_s,
        "wasted_share": wasted_s / billed_s,
        "wasted_share_with_loading": (wasted_s + loading_s) / billed_s,
        "share_of_dollars": {
            "idle": account.idle_s / billed_s, "loading": loading_s / billed_s,
            "lost": (account.lost_s + account.leases_s) / billed_s, "recomputed": account.recomputed_s / billed_s,
            "work": account.useful_s / billed_s,
        },
        "recovery": {
            name: percentiles(
                [
                    one.resumed_s - one.taken_s
                    for one in outcome.recoveries
                    if one.with_notice is with_notice and one.resumed_s is not None
                ]
            )
            for name, with_notice in (("with_notice", True), ("without_notice", False))
        },
    }  # fmt: skip


@click.command()
@click.argument("real", type=click.Path(path_type=Path, exists=True))
@click.option("--lengths", type=click.Path(path_type=Path, exists=True), required=True, help="A brief run's report.")
@click.option("--trace", type=click.Path(path_type=Path, exists=True), default=TRACE, help="The trace of the run.")
@click.option("--draws", default=20, show_default=True, help="How often lengths are drawn.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(real: Path, lengths: Path, trace: Path, draws: int, out: Path | None) -> None:
    run = Run(json.loads(real.read_text()), json.loads(lengths.read_text()))
    found = []
    for draw in range(draws):
        outcome, begins_s = simulate(run, trace.read_text(), Random(draw))
        found.append(figures(run, outcome, begins_s))
    simulated = medians(found)
    beside = {name: {"real": run.found[name], "simulated": simulated[name]} for name in simulated}
    click.echo(told(beside), err=True)
    report = circumstances("a simulation of a run of real workers, beside it", "pydantic")
    publish({**report, "draws": draws, "speed": asdict(run.speed), "figures": beside}, out)


def told(beside: Mapping[str, Any]) -> str:
    """Returns the table of docs/fleet.md."""
    rows: list[tuple[str, Sequence[str], Callable[[float], str]]] = [
        ("all jobs settled within, s", ["took_s"], whole),
        ("workers taken", ["kills"], whole),
        ("of these with notice", ["kills_with_notice"], whole),
        ("jobs settled", ["settled"], whole),
        ("recomputed or lost", ["wasted_share"], percent),
        ("the same with loading", ["wasted_share_with_loading"], percent),
        ("lost alone", ["share_of_dollars", "lost"], percent),
        ("recomputed alone", ["share_of_dollars", "recomputed"], percent),
        ("idle", ["share_of_dollars", "idle"], percent),
        ("tokens computed again", ["recomputed_tokens"], whole),
        ("with notice, until others had gone on: median, s", ["recovery", "with_notice", "p50_s"], whole),
        ("the same, 95th percentile, s", ["recovery", "with_notice", "p95_s"], whole),
        ("after kill -9, until others had gone on: median, s", ["recovery", "without_notice", "p50_s"], whole),
        ("the same, 95th percentile, s", ["recovery", "without_notice", "p95_s"], whole),
    ]
    lines = []
    for shown, (name, *rest), show in rows:
        real, simulated = beside[name]["real"], beside[name]["simulated"]
        for step in rest:
            real, simulated = real[step], simulated[step]
        lines.append([shown, show(real), spread(simulated, show)])
    return table(("", "real", "simulated"), lines)


def medians(found: Sequence[Any]) -> Any:
    """Returns the median and the range of each number in documents that are alike."""
    if isinstance(found[0], Mapping):
        names = [name for name in found[0] if all(name in one for one in found)]
        return {name: medians([one[name] for one in found]) for name in names}
    rounded = [float(f"{number:.4g}") for number in (statistics.median(found), min(found), max(found))]
    return dict(zip(("median", "low", "high"), rounded, strict=True))


if __name__ == "__main__":
    main()
