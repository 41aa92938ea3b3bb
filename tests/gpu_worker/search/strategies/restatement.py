"""One step of a path on the stub engine, stated once more and without a tree."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ponder_worker.search.engine_port import ScoreRequest
from ponder_worker.search.tree.node import child_seed

from ..conftest import END, PIECES, PROMPT, score_of, token_at


@dataclass(frozen=True)
class Path:
    address: tuple[int, ...]
    seed: int
    ids: tuple[int, ...] = ()
    score: float = 0.0
    stop: str = "separator"

    @property
    def text(self) -> str:
        return "".join(PIECES[token] for token in self.ids)


def step(path: Path, ordinal: int, room: int, *, keep_on: bool) -> Path:
    own, ids, stop = child_seed(path.seed, ordinal), list[int](), "length"
    while len(path.ids) + len(ids) < room:
        ids.append(token_at(own, len(PROMPT) + len(path.ids) + len(ids)))
        if ids[-1] == END:
            stop = "stop"
            break
        if PIECES[ids[-1]] == "\n" and not keep_on:
            stop = "separator"
            break
    before = [*PROMPT, *path.ids]
    text = "".join(PIECES[token] for token in ids)
    score = path.score + (score_of(ScoreRequest(before, ids, "", text)) if text else 0.0)
    return replace(path, address=(*path.address, ordinal), seed=own, ids=(*path.ids, *ids), score=score, stop=stop)
