"""The cell of a job: the jobs that its length is compared with, and the limits on that length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ponder.domain.batch.stages import Pin, solvers, stage_request
from ponder.domain.budget import most_accepting, most_judging

_LEVEL_LENGTH = 64
_STEPS_A_SAMPLE = 8
_PARAMETERS = ("n", "width", "select", "early_stopping", "shortest", "num_probes", "num_waits", "every", "num_equal")
"""The parameters of strategies that decide how much is generated."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The strategy of a job in canonical form, and its size.

    samples: how many whole samples it generates, at most or about. cap: the most tokens of each, on the average, with
    its share of what judges say.
    """

    strategy: str
    samples: float
    cap: float

    @classmethod
    def of(cls, request: Mapping[str, Any], room: int) -> Cell:
        """Reads a job's request. `room` is what its prompt leaves of the context."""
        if "stages" in _strategy(request):
            return cls._of_stages(request, solvers(request), room)
        budget = request.get("budget") or {}
        samples = _num_samples(_strategy(request), int(request.get("n") or 1)) * int(request.get("max_rounds") or 1)
        limits = ((request.get("sampling") or {}).get("max_tokens"), budget.get("tokens_per_sample"))
        cap = min([float(limit) for limit in limits if limit is not None] + [float(max(room, 1))])
        cap += most_judging(request) / samples
        tokens = (request.get("effort") or budget).get("tokens") or budget.get("tokens")
        return cls(_canonical(request), samples, min(cap, tokens / samples) if tokens else cap)

    @classmethod
    def _of_stages(cls, request: Mapping[str, Any], stages: Sequence[Pin], room: int) -> Cell:
        """Takes half of the jobs of each stage of a cascade to go on to the next."""
        cells = [cls.of(stage_request(request, number), room) for number in range(len(stages))]
        shares = [0.5**number for number in range(len(cells))]
        samples = sum(cell.samples * share for cell, share in zip(cells, shares, strict=True))
        said = [most_accepting(stage) for stage in request["strategy"]["stages"]]
        tokens = sum(
            (cell.samples * cell.cap + num) * share for cell, num, share in zip(cells, said, shares, strict=True)
        )
        names = [
            f"{cell.strategy}{' by judge' if num else ''} on {pin.fingerprint[:8]}"
            for cell, num, pin in zip(cells, said, stages, strict=True)
        ]
        limit = (request.get("budget") or {}).get("tokens")
        return cls(f"cascade: {', '.join(names)}", samples, min(tokens, limit or tokens) / samples)


def level_of(level: str | None) -> str:
    """Returns the name under which the jobs of a level are counted."""
    return (level or "")[:_LEVEL_LENGTH]


def prompt_size(request: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the bytes of a prompt's texts and, of a prompt that is token ids, their number."""
    prompt = request.get("prompt")
    if isinstance(prompt, list):
        return 0, len(prompt)
    texts = [message.get("content") or "" for message in request["messages"]] if prompt is None else [prompt]
    return sum(len(str(text).encode()) for text in texts), 0


def _canonical(request: Mapping[str, Any]) -> str:
    """Writes whatever decides how much a job generates, but no free text and no number of many digits: such as
    `best_of_n n=16 early_stopping=beta`.
    """
    strategy = _strategy(request)
    parameters = {name: strategy[name] for name in _PARAMETERS if strategy.get(name) is not None}
    if (confidence := strategy.get("confidence")) is not None:
        parameters["keep"] = round(float(confidence.get("keep", 1)), 2)
    effort, budget = request.get("effort") or {}, request.get("budget") or {}
    verifier = request.get("verifier") or {}
    thinking = effort.get("thinking_tokens") or budget.get("thinking_tokens")
    others = {
        "choices": request.get("n") if "n" not in strategy else None,
        "rounds": request.get("max_rounds"),
        "judge_n": (strategy.get("judge") or {}).get("n"),
        # As text, so that a single reply is named too.
        "judged": str(verifier.get("n", 1)) if verifier.get("name") == "judge" else None,
        "thinking": thinking and 1 << (int(thinking) - 1).bit_length(),  # rounded up to a power of two
    }
    parameters |= {name: value for name, value in others.items() if value not in (None, 1)}
    return " ".join([str(strategy["name"]), *(f"{name}={value}" for name, value in parameters.items())])


def _strategy(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the strategy, also of a request that names none, because no estimate may hold up a settlement."""
    return request.get("strategy") or {"name": "direct"}


def _num_samples(strategy: Mapping[str, Any], num_choices: int) -> int:
    """Returns how much a strategy generates, in whole samples: its maximum, except where that would mislead."""
    n = int(strategy.get("n", 1))
    match strategy["name"]:
        case "mcts":
            n = -(-n * int(strategy.get("width", 1)) // _STEPS_A_SAMPLE)
        case "refine":  # all tries form one conversation, which has the limit of a sample
            n = 1
        case "adaptive":  # most jobs end after their probes
            n = (n + min(n, int(strategy.get("num_probes", 1)))) // 2
    return max(n, num_choices)
