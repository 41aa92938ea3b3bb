"""Search trees for pages to show, as a worker would store them."""

from __future__ import annotations

from random import Random
from typing import Any

_STEPS = (
    "Let x be the number of apples that Ann buys.\n",
    "She pays 3 dollars for each, so 3x = 27.\n",
    "Dividing both sides by 3 gives x = 9.\n",
    "Then Bob eats two of them, which leaves 9 - 2 = 7.\n",
    "So the answer is \\boxed{7}.\n",
)


def example_tree(num_nodes: int, *, width: int = 4, seed: int = 7, texts: tuple[str, ...] = _STEPS) -> dict[str, Any]:
    """Returns a tree of a search over steps: of each level a part is pruned, and the best leaf is chosen."""
    random = Random(seed)
    nodes: list[dict[str, Any]] = [_node(-1, 0, "", None, 0)]
    open_nodes, depth = [0], 0
    while len(nodes) < num_nodes:
        level = []
        for parent in open_nodes:
            for ordinal in range(min(width, num_nodes - len(nodes))):
                text = f"{texts[depth % len(texts)].rstrip()}" + (f" (way {ordinal})" if ordinal % 3 else "")
                nodes.append(_node(parent, ordinal, text, random.random(), random.randint(5, 60)))
                level.append(len(nodes) - 1)
        kept = sorted(level, key=lambda index: -nodes[index]["score"])[: max(2, len(level) // 2)]
        for index in set(level) - set(kept):
            nodes[index]["state"] = "pruned"
        open_nodes, depth = kept, depth + 1
    best = max(open_nodes, key=lambda index: nodes[index]["score"])
    nodes[-1] |= {"state": "finished", "stop": "length"}
    nodes[-2] |= {"state": "cancelled", "stop": "settled", "speculative": True}
    return {
        "nodes": nodes,
        "candidates": [{"node": best, "answer": "7", "score": nodes[best]["score"]}],
        "chosen": 0,
        "rounds": [0],
    }


def _node(parent: int, ordinal: int, text: str, score: float | None, tokens: int) -> dict[str, Any]:
    node = {"parent": parent, "ordinal": ordinal, "text": text, "ids": [], "tokens": tokens, "state": "finished"}
    return node | {"stop": "separator" if parent >= 0 else None, "score": score, "speculative": False}
