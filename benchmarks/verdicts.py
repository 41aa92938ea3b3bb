"""Accuracy and speed of verdicts on public data sets, which are not part of the project.

    python benchmarks/verdicts.py --out benchmarks/results/verdicts.json

An answer takes the same way as that of a job: it is read out of a text and then examined. A wrong pass is an answer
that passed and should not have. A wrong fail is one that should have passed and did not, including `unverified`. Each
of them is printed. The JSON holds only their numbers, because the texts are not ours.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circumstances import circumstances, publish

from ponder_worker.answers.extraction import extract
from ponder_worker.answers.writing import plain
from ponder_worker.engine_process.job_request import answer_of
from ponder_worker.verify import Case, examine
from ponder_worker.verify.mathematics.formula import parse

SHARED = Path(__file__).parents[2] / "shared" / "data"
WRONG_PAIR = (r"$1 - \frac{1}{\mathrm{e}}$", r"$1 + \frac{1}{\mathrm{e}}$")
OUR_OPTIONS = {"precision": 6, "allow_set_relation_comp": False, "strict": True}.items()
NUM_DIFFERENT = 4_000
NUM_TIMED = 2_000
ROUNDS = 3
LENGTH = 100_000
HOSTILE = {
    "blanks behind an option": "Answer: option" + " " * LENGTH + "z",
    "blanks behind a fence": "```" + " " * LENGTH,
    "open boxes": r"\boxed{" * (LENGTH // 7),
    "boxes": r"\boxed{1} and " * (LENGTH // 14),
    "labels": "the answer is " * (LENGTH // 14),
    "empty labels": "Answer:\n" * (LENGTH // 8),
    "headings": "#### Step\n" * (LENGTH // 10),
    "digits": "9" * LENGTH + "e999",
    "numbers": "1,2 " * (LENGTH // 4),
    "dollars": "$5 " * (LENGTH // 3),
    "braces": "{" * (LENGTH // 2) + "}" * (LENGTH // 2),
    "backslashes": "\\" * LENGTH,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One case. text: what a model wrote. is_answer: the text is an answer already, so nothing is read out of it."""

    verifier: str
    text: str
    reference: str
    is_right: bool
    is_answer: bool = False


@dataclass(slots=True)
class Agreement:
    num: int = 0
    wrong_passes: list[str] = field(default_factory=list)
    wrong_fails: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return 1 - (len(self.wrong_passes) + len(self.wrong_fails)) / self.num


def judged(verdict: Verdict) -> str:
    answer = verdict.text if verdict.is_answer else answer_of({"verifier": {"name": verdict.verifier}})(verdict.text)
    return str(examine(Case({"name": verdict.verifier}, answer, verdict.reference)).verdict.value)


def measure(verdicts: Iterable[Verdict]) -> Agreement:
    found = Agreement()
    for verdict in verdicts:
        found.num += 1
        said = judged(verdict)
        if (said == "passed") != verdict.is_right:
            shown = f"{verdict.verifier}: {verdict.text[-120:]!r} for {verdict.reference[-120:]!r} {said}"
            (found.wrong_passes if said == "passed" else found.wrong_fails).append(shown)
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def references(path: Path, key: str) -> Iterator[Verdict]:
    for row in rows(path):
        for text in (rf"so \boxed{{{row[key]}}}.", f"The answer is ${row[key]}$."):
            yield Verdict("math", text, row[key], True)


def gsm8k(path: Path, *, worked: bool) -> Iterator[Verdict]:
    """Cases of GSM8K, against the plain number or against the whole worked solution."""
    for row in rows(path):
        number = row["answer"].rpartition("####")[2].strip()
        for verifier in ("number", "math"):
            for text in (f"Answer: {number}", row["answer"], rf"\boxed{{{number}}}"):
                yield Verdict(verifier, text, row["answer"] if worked else number, True)


def math_verify(path: Path, *, is_answer: bool) -> Iterator[Verdict]:
    for row in rows(path):
        if (row["gold"], row["pred"]) != WRONG_PAIR and row["extra"].items() <= OUR_OPTIONS:
            yield Verdict("math", row["pred"], row["gold"], row["expected"], is_answer)


def qwen(path: Path) -> Iterator[Verdict]:
    for row in rows(path):
        for text, is_right in zip(row["code"], row["score"], strict=True):
            yield Verdict("math", text, row["answer"], is_right)


def reports(path: Path) -> Iterator[Verdict]:
    for row in rows(path):
        yield Verdict(row["verifier"], row["text"], row["reference"], row["expect"] == "passed")


def different(path: Path) -> Iterator[Verdict]:
    """References of different problems, no two of which are equal."""
    answers = sorted({row["answer"] for row in rows(path)})
    pairs = list(itertools.combinations(answers, 2))
    for one, other in random.Random(0).sample(pairs, NUM_DIFFERENT):
        yield Verdict("math", rf"\boxed{{{one}}}", other, False)


def verdicts_per_s(verifier: str, verdicts: Iterable[Verdict]) -> float:
    """Verdicts per second of processor time, with the answers already read out of their texts."""
    wanted = itertools.islice((verdict for verdict in verdicts if verdict.verifier == verifier), NUM_TIMED)
    cases = [Case({"name": verifier}, extract(verdict.text), verdict.reference) for verdict in wanted]
    return len(cases) / statistics.median(seconds_of(cases) for _ in range(ROUNDS))


def seconds_of(cases: list[Case]) -> float:
    plain.cache_clear()
    parse.cache_clear()
    gc.collect()
    start = time.process_time()
    for case in cases:
        examine(case)
    return time.process_time() - start


def milliseconds(text: str) -> float:
    gc.collect()
    start = time.process_time()
    extract(text)
    return 1_000 * (time.process_time() - start)


def sets(data: Path) -> dict[str, Callable[[], Iterable[Verdict]]]:
    problems, oracles = data / "problems", data / "oracles"
    pairs, solutions = oracles / "math_verify_pairs.jsonl", oracles / "qwen_eval_rm_maj_math_cot_100.jsonl"
    return {
        "MATH-500, references against themselves": lambda: references(problems / "math500.jsonl", "answer"),
        "AIME 2024": lambda: references(problems / "aime24.jsonl", "expected_answer"),
        "AIME 2025": lambda: references(problems / "aime25.jsonl", "expected_answer"),
        "GSM8K, the number": lambda: gsm8k(problems / "gsm8k_test.jsonl", worked=False),
        "GSM8K, the worked solution": lambda: gsm8k(problems / "gsm8k_test.jsonl", worked=True),
        "Math-Verify's pairs, as a job's answer goes": lambda: math_verify(pairs, is_answer=False),
        "Math-Verify's pairs, as published": lambda: math_verify(pairs, is_answer=True),
        "Qwen2.5-Math, 100 x 8 solutions": lambda: qwen(solutions),
        "public reports": lambda: reports(data / "reports" / "answers.jsonl"),
        "MATH-500, pairs that must differ": lambda: different(problems / "math500.jsonl"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        raise SystemExit(f"{arguments.data} does not exist: --data names the folder of the public data")
    agreements = {}
    for name, verdicts in sets(arguments.data).items():
        found = measure(verdicts())
        wrong = {"wrong_passes": len(found.wrong_passes), "wrong_fails": len(found.wrong_fails)}
        agreements[name] = {"agreement": round(found.share, 4), "num": found.num} | wrong
        print(f"{found.share:8.2%} of {found.num:5}  {name}", flush=True)
        for shown in (*found.wrong_passes, *found.wrong_fails):
            print(f"    {shown}", flush=True)
    problems = arguments.data / "problems"
    solutions = arguments.data / "oracles" / "qwen_eval_rm_maj_math_cot_100.jsonl"
    speed = {
        "number, GSM8K": verdicts_per_s("number", gsm8k(problems / "gsm8k_test.jsonl", worked=True)),
        "math, GSM8K": verdicts_per_s("math", gsm8k(problems / "gsm8k_test.jsonl", worked=True)),
        "math, Qwen2.5-Math": verdicts_per_s("math", qwen(solutions)),
        "math, pairs that must differ": verdicts_per_s("math", different(problems / "math500.jsonl")),
    }
    hostile = {name: milliseconds(text) for name, text in HOSTILE.items()}
    packages = ("latex2sympy2_extended", "sympy")
    report = circumstances("verdicts on public data: agreement, throughput, time of extraction", *packages)
    report |= {
        "sets": agreements,
        "verdicts_per_s": {name: round(number) for name, number in speed.items()},
        "extraction_ms_of_100_kb": {name: round(number, 1) for name, number in hostile.items()},
    }
    publish(report, arguments.out)


if __name__ == "__main__":
    main()
