from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from ponder.domain.money import NANODOLLARS, nanodollars
from ponder.domain.state import JobState, Verdict
from ponder.errors import InvalidInput, UnknownMachine
from ponder.jobs.tick import Settlement, Usage
from ponder.ledger.price_book import Billing, set_price
from ponder.ledger.reporting import Selection
from ponder.ledger.what_if import MachinePrices, TokenPrices, WhatIfRow, what_if

MILLION = 1_000_000


def _what_if(world: Any, prices: MachinePrices | TokenPrices, *by: str) -> list[WhatIfRow]:
    with world.engine.begin() as connection:
        return what_if(connection, Selection(by), prices)


def _passed(job: int, tokens: int = 100) -> Settlement:
    usage = Usage(prompt_tokens=50, cached_tokens=20, completion_tokens=tokens)
    return Settlement(job, JobState.COMPLETED, verdict=Verdict.PASSED, usage=usage)


@pytest.fixture
def worked(world: Any) -> str:
    """An h200 on the spot market that settled two jobs."""
    world.batch(2, strategy="direct")
    worker = world.worker()
    jobs = world.claim_all(worker)
    world.tick(worker, work=world.work(*jobs), settled=[_passed(job) for job in jobs])
    return str(worker)


def _lives(world: Any, worker: str, seconds: int) -> None:
    """Makes the worker's one entry that of a life of so many seconds."""
    price = world.sql("SELECT nanodollars_per_hour AS price FROM incarnations WHERE id = :id", id=worker)[0].price
    world.rewrite_ledger("DELETE FROM ledger_entries WHERE incarnation_id = :id AND job_id IS NULL", id=worker)
    world.rewrite_ledger("UPDATE ledger_entries SET nanodollars = :n", n=price * seconds // 3600 // 2)
    world.sql("UPDATE incarnations SET started_at = billed_until - :s * interval '1 second'", s=seconds)


def test_another_market_changes_the_cost_by_the_ratio_of_the_prices(world: Any, worked: str) -> None:
    _lives(world, worked, 3600)
    (row,) = _what_if(world, MachinePrices(market="on_demand"), "strategy")
    assert row.group == {"strategy": "direct"}
    assert row.ratio == pytest.approx(3.74 / 1.50, rel=1e-6)
    assert row.other_cost_per_success == row.other_nanodollars / 2
    assert row.nanodollars == 1_500_000_000


def test_a_faster_machine_is_paid_for_less_time(world: Any, worked: str) -> None:
    _lives(world, worked, 3600)
    (row,) = _what_if(world, MachinePrices(machine="h100", speed=Fraction(1, 2)))
    assert row.other_nanodollars == 2 * nanodollars("1.20")
    (row,) = _what_if(world, MachinePrices(nanodollars_per_hour=nanodollars("6"), speed=Fraction(4)))
    assert row.other_nanodollars == nanodollars("1.5")


def test_whole_hours_and_minimums_are_paid_for_each_life_of_a_worker(world: Any, worked: str) -> None:
    _lives(world, worked, 90)
    exact = nanodollars("1.50") * 90 // 3600
    for billing, seconds in (
        (Billing("second"), 90),
        (Billing("minute"), 120),
        (Billing("hour"), 3600),
        (Billing("second", 600), 600),
        (Billing("minute", 30), 120),
    ):
        (row,) = _what_if(world, MachinePrices(billing=billing))
        assert row.other_nanodollars == pytest.approx(exact * seconds / 90, abs=1)


def test_the_price_book_says_how_its_prices_are_billed(world: Any, worked: str) -> None:
    _lives(world, worked, 90)
    with world.engine.begin() as connection:
        price = set_price(
            connection,
            "b200",
            "spot",
            nanodollars("3"),
            source="test",
            billing=Billing("hour"),
            region="eu",
            currency="EUR",
        )
    assert (price.billed_by, price.minimum_s, price.region, price.currency) == ("hour", 0, "eu", "EUR")
    (row,) = _what_if(world, MachinePrices(machine="b200"))
    assert row.other_nanodollars == pytest.approx(nanodollars("3"), abs=2)
    (row,) = _what_if(world, MachinePrices(machine="b200", billing=Billing("second")))
    assert row.other_nanodollars == pytest.approx(nanodollars("3") * 90 / 3600, abs=2)


def test_a_token_list_prices_prompts_answers_and_cached_tokens_exactly(world: Any, worked: str) -> None:
    per_token = Fraction(NANODOLLARS, MILLION)
    prices = TokenPrices(Fraction("0.5") * per_token, 2 * per_token, Fraction("0.05") * per_token)
    (row,) = _what_if(world, prices)
    assert row.other_nanodollars == 2 * (30 * 500 + 20 * 50 + 100 * 2000)


def test_a_measured_speed_is_that_of_the_same_model_on_both_machines(world: Any) -> None:
    for machine, tokens in (("h200", 300), ("h100", 100)):
        world.batch(strategy=machine)
        worker = world.worker(machine=machine)
        (job,) = world.claim_all(worker)
        world.tick(worker, work=world.work(job), settled=[_passed(job, tokens)])
        price = world.sql("SELECT nanodollars_per_hour AS price FROM incarnations WHERE id = :id", id=worker)[0].price
        world.rewrite_ledger("DELETE FROM ledger_entries WHERE job_id IS NULL")
        world.rewrite_ledger("UPDATE ledger_entries SET nanodollars = :n WHERE job_id = :job", n=price // 100, job=job)
    exact = MachinePrices("h100", nanodollars_per_hour=nanodollars("1.20"), speed="measured")
    rows = {row.group["strategy"]: row for row in _what_if(world, exact, "strategy")}
    assert rows["h200"].ratio == pytest.approx(3 * 1.20 / 1.50)
    assert rows["h100"].ratio == pytest.approx(1)


def test_what_cannot_be_priced_is_refused_by_name(world: Any, worked: str) -> None:
    with pytest.raises(UnknownMachine, match="'abacus'"):
        _what_if(world, MachinePrices(machine="abacus"))
    with pytest.raises(InvalidInput, match=r"the speed of demo on h.00 is not measured") as raised:
        _what_if(world, MachinePrices(machine="h100", speed="measured"))
    assert raised.value.param == "speed"
    for bad in ({"billed_by": "day"}, {"minimum_s": -1}):
        with pytest.raises(InvalidInput):
            Billing(**bad)  # type: ignore[arg-type]


def test_a_small_model_with_best_of_32_is_compared_with_a_large_one_at_the_prices_of_a_gpu_cloud(world: Any) -> None:
    """The figures are assumptions, stated here: 100 problems, 1,000 tokens a sample, an H100 at $2.99 an hour.

    | model | samples | GPUs | tokens/s | passed | GPU hours | on demand | a success |
    |---|---|---|---|---|---|---|---|
    | 70B | 1 | 4 | 1,000 | 60 | 0.111 | $0.3322 | $0.00554 |
    | 7B | 32 | 1 | 10,000 | 68 | 0.0889 | $0.2658 | $0.00391 |
    """
    spot = nanodollars("1.20")
    cases = {"70b": ("direct", 1, 4, 1_000, 60), "7b": ("best_of_n", 32, 1, 10_000, 68)}
    for model, (strategy, samples, gpus, tokens_per_s, num_passed) in cases.items():
        world.batch(100, models=[model], strategy=strategy)
        worker = world.worker(model=model, machine="h100")
        jobs = world.claim_all(worker)
        settled = [
            Settlement(
                job,
                JobState.COMPLETED,
                verdict=Verdict.PASSED if index < num_passed else Verdict.FAILED,
                usage=Usage(completion_tokens=1_000 * samples),
            )
            for index, job in enumerate(jobs)
        ]
        world.tick(worker, work=world.work(*jobs), settled=settled)
        gpu_seconds = Fraction(100 * 1_000 * samples * gpus, tokens_per_s)
        world.rewrite_ledger("DELETE FROM ledger_entries WHERE job_id IS NULL")
        world.rewrite_ledger(
            "UPDATE ledger_entries SET nanodollars = :n WHERE incarnation_id = :id",
            n=int(spot * gpu_seconds / 3600 / 100),
            id=worker,
        )
    exact = MachinePrices(nanodollars_per_hour=nanodollars("2.99"))
    rows = {row.group["model"]: row for row in _what_if(world, exact, "model")}
    dollars = {model: row.other_nanodollars / NANODOLLARS for model, row in rows.items()}
    assert dollars == pytest.approx({"70b": 0.3322, "7b": 0.2658}, abs=1e-4)
    success = {model: (row.other_cost_per_success or 0) / NANODOLLARS for model, row in rows.items()}
    assert success == pytest.approx({"70b": 0.00554, "7b": 0.00391}, abs=1e-5)
    assert {model: row.ratio for model, row in rows.items()} == pytest.approx({"70b": 2.99 / 1.2, "7b": 2.99 / 1.2})
