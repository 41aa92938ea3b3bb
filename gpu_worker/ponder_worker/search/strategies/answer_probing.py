"""Thinking that ends when its answer has settled: Certaindex, Fu et al. 2024, https://arxiv.org/abs/2412.20993."""

from __future__ import annotations

from ponder.domain.strategy import AnswerProbing
from ponder_worker.answers.equality import canonical
from ponder_worker.search.expansion.streams import GenerationOptions
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.direct import in_order
from ponder_worker.search.thought import Thought
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node


async def answer_probing(search: Search, spec: AnswerProbing) -> list[Candidate]:
    """Returns one sample for each choice, made one after the other. A probe that has no room is left out."""
    samples = [await _sample(search, spec) for _ in range(search.num_choices)]
    return in_order([sample for sample in samples if sample is not None])


async def _sample(search: Search, spec: AnswerProbing) -> Candidate | None:
    """Thinks piece by piece, with a probe after each, until the model ends its thought or the thought is to be closed.

    A piece is a node. A probe is below it, beside the next piece. Returns None if the budget has no room for anything.
    """
    thought = search.options.thought or Thought.unmarked(search.engine.encode(spec.answer))
    limits = (thought.latest_end(search.expander.room(search.root)), search.options.thinking_tokens)
    limit = min((limit for limit in limits if limit is not None), default=0)
    if not limit:
        return await _ended(search, search.root)
    node = search.root
    ids: list[int] = []
    answers: list[str | None] = []
    while len(ids) < limit and not _is_settled(answers, spec.num_equal):
        options = GenerationOptions(max_tokens=min(spec.every, limit - len(ids)))
        pieces = await search.expander.generate(node, 1, options).all()
        if not pieces:
            break
        (node,) = pieces
        ids += node.ids
        if node.stop != "length":
            return search.candidate(node)
        if not thought.measure(search.root.ids, ids)[1]:
            return await _ended(search, node)
        if len(ids) < limit:
            answers.append(await _probed(search, spec, node))
    closed = await search.expander.force(node, list(thought.closing_ids), stop="inserted")
    return await _ended(search, closed or node)


def _is_settled(answers: list[str | None], num_equal: int) -> bool:
    last = answers[-num_equal:]
    return len(last) == num_equal and last[0] is not None and len(set(last)) == 1


async def _probed(search: Search, spec: AnswerProbing, node: Node) -> str | None:
    """Returns the answer that the model gives here, on one line; None if it gives none."""
    probe = await search.expander.force(node, search.engine.encode(spec.probe), stop="inserted")
    if probe is None:
        return None
    options = GenerationOptions(separator="\n", max_tokens=spec.probe_tokens)
    said = await search.expander.generate(probe, 1, options).all()
    answer = search.answer_of(spec.probe + search.text(said[0])) if said else None
    return None if answer is None else canonical(answer)


async def _ended(search: Search, node: Node) -> Candidate | None:
    """Returns the sample that goes on from here to its end, or ends here if the budget has no room."""
    made = [candidate async for candidate in search.complete(node)]
    if made:
        return made[0]
    return None if node is search.root else search.candidate(node)
