"""When jobs arrive."""

from __future__ import annotations

import statistics
import tarfile
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.bench.arrivals import arrival_times
from ponder.bench.suite import AtOnce, Gamma, Poisson, Trace
from ponder.errors import InvalidInput

BURST = "Timestamp,Model,Request tokens\n5,ChatGPT,472\n45.5,ChatGPT,1087\n118,GPT-4,417\n"
AZURE = "TIMESTAMP,ContextTokens\n2023-11-16 18:15:46.6805900,374\n2023-11-16 18:15:50.9951690,396\n"
MOONCAKE = '{"timestamp": 0, "input_length": 7}\n{"timestamp": 3500, "input_length": 9}\n'
SERVE_GEN = "0,0,0,,0,0\n600,0.5,2.0,Gamma,0.25,8.0\n1200,1.0,3.0,Weibull,0.4,0.3\n"


@pytest.mark.parametrize(
    ("name", "content", "times"),
    [("burst.csv", BURST, [0.0, 40.5, 113.0]), ("azure.csv", AZURE, [0.0, 4.314579]), ("m.jsonl", MOONCAKE, [0, 3.5])],
)
def test_recorded_services_are_replayed(tmp_path: Path, name: str, content: str, times: list[float]) -> None:
    (tmp_path / name).write_text(content)
    trace = Trace(process="trace", path=name)
    assert arrival_times(trace, len(times), tmp_path, Random(0)) == pytest.approx(times)


def test_serve_gen_is_drawn_from_its_windows(tmp_path: Path) -> None:
    (tmp_path / "chunk-0-trace.csv").write_text(SERVE_GEN)
    with tarfile.open(tmp_path / "two.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "chunk-0-trace.csv", "data/chunk-0-trace.csv")
        archive.add(tmp_path / "chunk-0-trace.csv", "data/chunk-1-trace.csv")
    times = arrival_times(Trace(process="trace", path="two.tar.gz"), 200, tmp_path, Random(1))
    assert times == sorted(times)
    assert times[0] == 0
    assert 200 < times[-1] < 1200


def test_a_trace_is_stretched_to_a_rate_and_begins_again_when_it_ends(tmp_path: Path) -> None:
    (tmp_path / "burst.csv").write_text(BURST)
    times = arrival_times(Trace(process="trace", path="burst.csv", rate_per_s=2), 9, tmp_path, Random(0))
    assert times == sorted(times)
    assert times[-1] == pytest.approx(4)


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "Timestamp\nsoon\n", "Timestamp\n"])
def test_another_format_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(InvalidInput, match=r"x\.csv (is not a trace|has no arrival)"):
        arrival_times(Trace(process="trace", path="x.csv"), 3, tmp_path, Random(0))


@pytest.mark.parametrize("content", ["[1]", "{}", '{"timestamp": null}', '{"timestamp": NaN}', '{"timestamp": 1e999}'])
def test_a_line_without_a_moment_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.jsonl").write_text(f'{{"timestamp": 1}}\n{content}\n')
    with pytest.raises(InvalidInput, match=r"x\.jsonl is not a trace"):
        arrival_times(Trace(process="trace", path="x.jsonl"), 3, tmp_path, Random(0))


@pytest.mark.parametrize("line", ["0,1,1,Weibull,0,1", "0,1,1,Weibull,0.001,1", "0,1", "0,nan,1,Weibull,1,1"])
def test_a_window_that_cannot_be_drawn_from_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "chunk-0-trace.csv").write_text(f"{line}\n")
    with pytest.raises(InvalidInput, match=r"(is not a trace|has no arrival)"):
        arrival_times(Trace(process="trace", path="."), 3, tmp_path, Random(0))


def test_an_archive_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x-trace.csv").write_text("".join(f"{n},{Random(n).random()},1,Gamma,1,1\n" for n in range(500)))
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "x-trace.csv", "x-trace.csv")
    (tmp_path / "cut.tar.gz").write_bytes((tmp_path / "whole.tar.gz").read_bytes()[:2_000])
    with pytest.raises(InvalidInput, match=r"cut\.tar\.gz is not a trace"):
        arrival_times(Trace(process="trace", path="cut.tar.gz"), 3, tmp_path, Random(0))


def test_gamma_gaps_have_the_rate_and_variation_that_were_asked_for() -> None:
    times = arrival_times(Gamma(process="gamma", rate_per_s=4, cv=2.5), 20_000, Path(), Random(3))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert 1 / statistics.fmean(gaps) == pytest.approx(4, rel=0.06)
    assert statistics.pstdev(gaps) / statistics.fmean(gaps) == pytest.approx(2.5, rel=0.06)


@given(num=st.integers(0, 50), rate=st.floats(0.1, 100), seed=st.integers(0, 5))
def test_there_is_one_time_for_each_job_in_order(num: int, rate: float, seed: int) -> None:
    for process in (AtOnce(), Poisson(process="poisson", rate_per_s=rate)):
        times = arrival_times(process, num, Path(), Random(seed))
        assert (len(times), times) == (num, sorted(times))
