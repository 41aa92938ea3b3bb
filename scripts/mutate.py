"""Plant small faults in a module, one at a time, and report those that its tests do not notice.

    python scripts/mutate.py MODULE TESTS [--num 20] [--seed 0]

MODULE is a file or folder, TESTS what pytest runs, in quotes (`"tests/platform/ledger -k cost"`). Cosmic Ray
(https://cosmic-ray.readthedocs.io, MIT) plants them in this checkout, in place, and takes them back: commit first.
It is not among the pinned packages: `pip install cosmic-ray==8.7.0`. A fault is one comparison, arithmetic or logical
operator, constant or `not`. The last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

_TOOL = Path(sys.executable).with_name("cosmic-ray")
_KEPT = (
    "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Add", "Pow_Mul",
    "LtE_Lt", "Lt_LtE", "GtE_Gt", "Gt_GtE", "Eq_NotEq", "NotEq_Eq", "Lt_Gt", "Gt_Lt", "In_NotIn", "Is_IsNot",
    "IsNot_Is", "AddNot", "NumberReplacer", "TrueWithFalse", "FalseWithTrue", "AndWithOr", "OrWithAnd",
)  # fmt: skip
_SECONDS_A_FAULT = 240


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("tests")
    parser.add_argument("--num", type=int, default=20, help="faults planted, drawn at random from all possible ones")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", options.module], check=False).returncode:
        print(f"{options.module} has changes that are not committed; commit them first", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        config, session = Path(folder, "config.toml"), Path(folder, "session.sqlite")
        config.write_text(
            f"[cosmic-ray]\nmodule-path = {json.dumps(options.module)}\ntimeout = {_SECONDS_A_FAULT}\n"
            f'excluded-modules = []\ntest-command = "{sys.executable} -m pytest -x -q -p no:cacheprovider '
            f'{options.tests}"\n[cosmic-ray.distributor]\nname = "local"\n'
        )
        subprocess.run([_TOOL, "baseline", config], check=True)  # without a fault the tests pass
        subprocess.run([_TOOL, "init", config, session], check=True)
        _draw(session, options.num, options.seed)
        subprocess.run([_TOOL, "exec", config, session], check=True)
        num, survivors = _outcome(session)
    for place, diff in survivors:
        print(f"not noticed: {place}\n{diff}\n")
    print(json.dumps({"module": options.module, "faults": num, "noticed": num - len(survivors), "seed": options.seed}))
    return 0


def _draw(session: Path, num: int, seed: int) -> None:
    """Keeps `num` faults of the kept kinds in the session."""
    with sqlite3.connect(session) as database:
        rows = database.execute(
            "SELECT module_path, start_pos_row, start_pos_col, operator_name, occurrence, job_id FROM mutation_specs"
        ).fetchall()
        found = sorted(row for row in rows if row[3].endswith(_KEPT) and not _is_declaration(*row[:3]))
        kept = {row[-1] for row in random.Random(seed).sample(found, min(num, len(found)))}  # noqa: S311
        for *_, job in rows:
            if job not in kept:
                database.execute("DELETE FROM mutation_specs WHERE job_id = ?", [job])
                database.execute("DELETE FROM work_items WHERE job_id = ?", [job])


def _is_declaration(path: str, row: int, column: int) -> bool:
    """Returns whether this is the option of a decorator, the `*` before keywords, or `strict` of a zip.

    No test should look at these.
    """
    line = Path(path).read_text().splitlines()[row - 1]
    before, after = line[:column], line[column:]
    return before.lstrip().startswith("@") or after.startswith(("@", "*,")) or before.endswith("strict=")


def _outcome(session: Path) -> tuple[int, list[tuple[str, str]]]:
    """Returns the number of faults planted, and the place and the change of each that no test noticed."""
    with sqlite3.connect(session) as database:
        rows = database.execute(
            "SELECT module_path, start_pos_row, diff, test_outcome FROM mutation_specs JOIN work_results USING (job_id)"
        ).fetchall()
    changed = [(f"{path}:{row}", "\n".join(diff.splitlines()[2:])) for path, row, diff, end in rows if "SURV" in end]
    return len(rows), sorted(changed)


if __name__ == "__main__":
    sys.exit(main())
