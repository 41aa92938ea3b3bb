"""Bytes that shared-prefix attention reads and writes, by the size of a leaf, counted from plans without a GPU.

    python benchmarks/attention_sharing.py --out benchmarks/results/attention_sharing.json

The figures are for one layer and one kv head of a bfloat16 model, relative to what is read when every sequence reads
its own keys and values. `keys` counts the keys and values that are read, and `partials` the partial results, written
and read again. `all` is their sum, and 1 / all bounds what sharing can save. `narrow` is the share of the keys that
items of one query read. `tiles` counts the keys as every tile of an item loads them, relative to `keys`. `private` is
the same family planned without sharing. The last line of standard output is one JSON object.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from circumstances import circumstances, publish

from ponder_kernels.attention.attention_plan import plan

Integers = npt.NDArray[np.int64]
PAGE = 16
SIZES = [(16, 32), (32, 16), (64, 8), (128, 4), (512, 1), (64, 1), (32, 1)]


class Tree:
    """Sequences that fork. Whole pages are shared, and a page that is not full is copied."""

    def __init__(self) -> None:
        self.sequences: list[tuple[list[int], int]] = []
        self.num_pages = 0

    def add(self, length: int, parent: int | None = None) -> int:
        pages, tokens = self.sequences[parent] if parent is not None else ([], 0)
        kept = pages[: tokens // PAGE]
        fresh = -(-(tokens + length) // PAGE) - len(kept)
        self.sequences.append((kept + list(range(self.num_pages, self.num_pages + fresh)), tokens + length))
        self.num_pages += fresh
        return len(self.sequences) - 1

    def decode(self, rows: list[int]) -> tuple[Integers, Integers]:
        """Context lengths and page table of a decode step."""
        chosen = [self.sequences[row] for row in rows]
        table = np.zeros((len(rows), max(len(pages) for pages, _ in chosen)), dtype=np.int64)
        for row, (pages, _) in enumerate(chosen):
            table[row, : len(pages)] = pages
        return np.array([tokens for _, tokens in chosen]), table


def families(count: int, size: int, prefix: int, own: int, seed: int = 0) -> tuple[Integers, Integers]:
    """Families of sequences whose own lengths differ by up to a half, as those of samples do."""
    generator, tree, rows = np.random.default_rng(seed), Tree(), []
    for _ in range(count):
        root = tree.add(prefix)
        rows += [tree.add(int(generator.integers(own // 2, own + own // 2 + 1)), root) for _ in range(size)]
    return tree.decode(generator.permutation(rows).tolist())


def beams(problems: int, width: int, depth: int, prompt: int, seed: int = 0) -> tuple[Integers, Integers]:
    """Beam searches of `width` beams. A step has 30 to 100 tokens, and a quarter of the beams survives it."""
    generator, tree, rows = np.random.default_rng(seed), Tree(), []
    system = tree.add(200)
    for _ in range(problems):
        level = [tree.add(prompt + int(generator.integers(0, 64)), system)]
        for _ in range(depth):
            kept = generator.permutation(level)[: max(1, width // 4)]
            level = [tree.add(int(generator.integers(30, 101)), int(kept[i % len(kept)])) for i in range(width)]
        rows += level
    return tree.decode(generator.permutation(rows).tolist())


SCENES = {
    "beams: 16 problems x 16, 10 steps of 30-100": lambda: beams(16, 16, 10, 200),
    "beams: 4 problems x 64, 20 steps of 30-100": lambda: beams(4, 64, 20, 200),
    "best of 64: 4 families, 2k shared, 2k own": lambda: families(4, 64, 2048, 2048),
    "best of 16: 16 families, 200 shared, 2k own": lambda: families(16, 16, 200, 2048),
    "few-shot: 256 problems, 4k shared, 300 own": lambda: families(1, 256, 4096, 300),
    "private: 256 chains of 3k": lambda: families(256, 1, 1024, 2048),
}


def measure(
    contexts: Integers, table: Integers, leaf: int, blocks: int, groups: int, head_dim: int, *, share: bool
) -> dict[str, Any]:
    ones = np.ones_like(contexts)
    options = {"tile_queries": 64 // groups, "leaf_tokens": leaf, "leaves_per_block": blocks, "share": share}
    found = plan(ones, contexts, table.astype(np.int32), PAGE, **options)
    whole = int(contexts.sum()) * 2 * head_dim * 2
    keys = found.tokens_read() * 2 * head_dim * 2 / whole
    partials = found.num_slots * groups * (head_dim + 1) * 4 * 2 / whole
    return {
        "keys": round(keys, 4),
        "partials": round(partials, 4),
        "all": round(keys + partials, 4),
        "narrow": round(replace(found, wide=found.wide[:0]).tokens_read() / found.tokens_read(), 4),
        "tiles": round(found.tokens_read(tiles=True) / found.tokens_read(), 4),
        "narrow_items": len(found.narrow),
        "wide_items": len(found.wide),
    }


@click.command()
@click.option("--groups", default=4, show_default=True, help="Query heads of one kv head.")
@click.option("--head-dim", default=128, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(groups: int, head_dim: int, out: Path | None) -> None:
    """Plan six scenes with several sizes of leaf and block."""
    results = []
    for name, scene in SCENES.items():
        contexts, table = scene()
        rows = [
            {
                "leaf": leaf,
                "block": leaf * blocks,
                **measure(contexts, table, leaf, blocks, groups, head_dim, share=True),
            }
            for leaf, blocks in SIZES
        ]
        private = measure(contexts, table, 64, 8, groups, head_dim, share=False)
        results.append(
            {
                "scene": name,
                "sequences": len(contexts),
                "tokens": int(contexts.sum()),
                "private": private,
                "shared": rows,
            }
        )
        click.echo(name)
        for row in rows:
            click.echo("  " + "  ".join(f"{key} {value}" for key, value in row.items()))
    report = {
        **circumstances(
            "bytes that shared-prefix attention moves, as a part of what private sequences read; counted", "numpy"
        ),
        "shape": {"query_heads_a_kv_head": groups, "head_dim": head_dim, "page": PAGE, "dtype": "bfloat16"},
        "results": results,
    }
    publish(report, out)


if __name__ == "__main__":
    main()
