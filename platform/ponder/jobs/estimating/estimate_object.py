"""The JSON of an estimate: every total with its interval, and the grounds that it rests on."""

from __future__ import annotations

from collections.abc import Sequence

from ponder.domain.forecast.ratio import Estimate
from ponder.domain.forecast.total import COVERAGE, Total
from ponder.domain.storable import JsonObject
from ponder.jobs.estimating.predict import Part, Prediction
from ponder.jobs.estimating.survey import Survey

_MOST_PARTS = 100


def estimate_object(found: Prediction, survey: Survey, loading: Estimate, num_workers: int | None) -> JsonObject:
    """Returns what `POST /v1/estimates` answers. `num_workers` is the number that the caller asks about.

    `loading` is the loaded cost for each direct dollar.
    """
    tokens = _ground(found.parts)
    time = found.unknown or _ground_of_time(found)
    loaded = None if found.direct is None else found.direct.times(loading.value, loading.variance)
    return {
        "object": "estimate",
        "jobs": found.num_jobs,
        "refused_lines": round(survey.num_refused * survey.scale),
        "first_refusal": survey.refusal,
        "read_lines": survey.num_read,
        "coverage": COVERAGE,
        "prompt_tokens": _total(found.prompt, "the bytes of the prompts"),
        "generated_tokens": _total(found.generated, tokens),
        "reward_tokens": _total(found.reward, tokens),
        "engine_seconds": _total(found.seconds, time),
        "direct_nanodollars": _total(found.direct, time),
        "loaded_nanodollars": _total(
            loaded, found.unknown or f"{time}; {loading.value:.2f} times the direct cost, as lately"
        ),
        "wall_seconds": _wall(found, found.num_workers, time),
        "wall_seconds_asked": None if num_workers is None else _wall(found, num_workers, time),
        "machines": [
            {
                "machine": fleet.machine,
                "market": fleet.market,
                "nanodollars_per_hour": round(fleet.nanodollars_per_hour),
                "workers": fleet.num_workers,
                "price_of": fleet.source,
            }
            for fleet in found.fleets
        ],
        "parts": [_part(part) for part in found.parts[:_MOST_PARTS]],
    }


def _total(total: Total | None, ground: str) -> JsonObject:
    if total is None:
        return {"estimate": None, "low": None, "high": None, "rests_on": ground}
    values = {"estimate": total.mean, "low": total.low, "high": total.high}
    return {name: round(value, 3) for name, value in values.items()} | {"rests_on": ground}


def _wall(found: Prediction, num_workers: int, ground: str) -> JsonObject:
    reason = ground if num_workers or found.unknown else "no worker of the model is alive"
    return _total(found.wall_seconds(num_workers), reason) | {"workers": num_workers}


def _part(part: Part) -> JsonObject:
    return {
        "model": part.model,
        "strategy": part.strategy,
        "level": part.level or None,
        "jobs": part.num_jobs,
        "settled": part.num_settled,
        "settled_of_model": part.num_of_model,
    }


def _ground(parts: Sequence[Part]) -> str:
    """Says how many jobs are estimated from jobs like them, from others of their model, and from the prior alone."""
    own = [part for part in parts if part.num_settled]
    near = [part for part in parts if not part.num_settled and part.num_of_model]
    alone = [part for part in parts if not part.num_of_model]
    said = []
    if own:
        num_settled = sum(part.num_settled for part in own)
        said.append(f"{_jobs(own)}: {num_settled:,} settled of the same strategy and level")
    if near:
        said.append(f"{_jobs(near)}: {near[0].num_of_model:,} settled of the model, of other strategies or levels")
    if alone:
        said.append(f"{_jobs(alone)}: the general prior, as none of the model has settled")
    return "; ".join(said)


def _jobs(parts: Sequence[Part]) -> str:
    number = sum(part.num_jobs for part in parts)
    return f"{number:,} job{'s' * (number != 1)}"


def _ground_of_time(found: Prediction) -> str:
    named = dict.fromkeys(f"{fleet.machine} at the price of {fleet.source}" for fleet in found.fleets)
    return f"engine time of settled jobs on {', '.join(named)}"
