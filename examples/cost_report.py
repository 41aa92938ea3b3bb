"""Compare the cost per successful task of strategies, on the jobs that this tenant has settled.

Run another example first, so that there is something to report. Money is counted in nano-dollars and printed in
micro-dollars. The direct cost is the engine time of the jobs themselves; the loaded cost adds their share of idle
time and loading.
"""

from typing import Any

from openai import OpenAI

client = OpenAI()
report: Any = client.get("/reports/cost?by=strategy", cast_to=object)
print(f"{'strategy':<18}{'tasks':>6}{'passed':>8}{'tokens':>8}{'direct µ$/task':>16}{'loaded µ$/success':>19}")
for row in report["data"]:
    direct = row["direct_nanodollars"] / row["settled"] / 1000
    loaded = row["cost_per_successful_task"]  # None without a success
    success = "none" if loaded is None else f"{loaded / 1000:.1f}"
    print(
        f"{row['strategy']:<18}{row['settled']:>6}{row['passed']:>8}{row['tokens_per_job']:>8.0f}"
        f"{direct:>16.3f}{success:>19}"
    )
