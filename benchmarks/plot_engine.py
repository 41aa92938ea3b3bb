"""Plot of what `engine.py --shape "small, swept"` measured: throughput against N and against the prompt's length.

    python benchmarks/plot_engine.py benchmarks/results/engine_sweep.json docs/images/engine.png

It needs matplotlib, as nothing else here does.
"""

import json
from pathlib import Path
from typing import Any

import click
import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


@click.command()
@click.argument("results", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
def main(results: Path, out: Path) -> None:
    """Draw two panels, with one line per engine."""
    report = json.loads(results.read_text())
    rows = report["results"]["small, swept"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    draw(left, [row for row in rows if row["prompt"] == 64], "siblings", "N of best-of-N, 4 prompts of 64 tokens")
    draw(right, [row for row in rows if row["siblings"] == 16], "prompt", "tokens of a prompt, 4 x best of 16")
    left.set_ylabel("tokens a second")
    left.legend(frameon=False)
    figure.suptitle("2.4M-parameter Qwen2 shape, bfloat16, 2 shared cores; prefill included", fontsize=10)
    figure.tight_layout()
    figure.savefig(out, dpi=90)


def draw(panel: Any, rows: list[dict[str, Any]], key: str, label: str) -> None:
    for name, style in (("ponder", "o-"), ("vllm", "s--")):
        points = [(row[key], row[name]["tokens_per_s"]) for row in rows if "tokens_per_s" in row.get(name, {})]
        if points:
            panel.plot(
                *zip(*sorted(points), strict=True), style, label={"vllm": "vLLM 0.32 on the CPU"}.get(name, name)
            )
    panel.set_xscale("log", base=2)
    panel.set_xticks([row[key] for row in rows], [str(row[key]) for row in rows])
    panel.set_xlabel(label)
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)


if __name__ == "__main__":
    main()
