"""Best of n samples by the reward model: Cobbe et al. 2021, https://arxiv.org/abs/2110.14168.

Or by a judge: in a knockout tournament of pairs, or by generative selection among all of them (GenSelect: Toshniwal et
al. 2025, https://arxiv.org/abs/2507.17797).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ponder.domain.strategy import BestOfN, Judging
from ponder_worker.answers.equality import canonical
from ponder_worker.search import judging
from ponder_worker.search.ranking import rank, vote
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.samples import eligible, gather, sample
from ponder_worker.search.tree.candidate import Candidate

DECISION = "select"
"""The beginning of the name under which a tree keeps what a judge chose in a round."""


async def best_of_n(search: Search, spec: BestOfN) -> list[Candidate]:
    match spec.select:
        case "tournament" | "genselect":
            return await _judged(search, spec)
        case select:
            return await sample(search, spec, select=select)


async def _judged(search: Search, spec: BestOfN) -> list[Candidate]:
    """Returns the samples as a judge ranks them, and after them those that it is not shown.

    The samples stop where more of them would not change the most frequent answer.
    """
    kept, others = eligible(spec, rank(await gather(search, spec, select="majority"), by="best"))
    shown = [candidate for candidate in kept if candidate.is_complete and candidate.said.strip()]
    texts, votes = [candidate.said for candidate in shown], [vote(candidate) for candidate in shown]
    order, matches = await _contest(search, spec, texts, votes)
    nodes, number = [candidate.node.index for candidate in shown], len(search.rounds)
    told = [{"nodes": [nodes[place] for place in places], "votes": votes} for places, votes in matches]
    decision = {"by": spec.select, "nodes": [nodes[place] for place in order], "matches": told}
    search.tree.decide(DECISION if number < 2 else f"{DECISION}.{number}", decision)
    return [*(shown[place] for place in order), *(one for one in kept if one not in shown), *others]


async def select(
    search: Search, spec: BestOfN, texts: Sequence[str], answers: Sequence[str | None], shown: Sequence[int]
) -> None:
    """Ranks the texts of another model's samples, and records their order in the tree.

    answers: what each text answers. shown: the places of those that are shown to the judge; the others come last.
    """
    if DECISION in search.tree.decisions:
        return
    votes = [None if (answer := answers[place]) is None else canonical(answer) for place in shown]
    order, matches = await _contest(search, spec, [texts[place] for place in shown], votes)
    told = [{"candidates": [shown[place] for place in places], "votes": votes} for places, votes in matches]
    ranked = [shown[place] for place in order]
    others = [place for place in range(len(texts)) if place not in shown]
    search.tree.decide(DECISION, {"by": spec.select, "order": [*ranked, *others], "matches": told})


async def _contest(
    search: Search, spec: BestOfN, texts: Sequence[str], answers: Sequence[str | None]
) -> tuple[list[int], list[tuple[list[int], judging.Votes]]]:
    """Returns the places of the texts from the best on, and what the judge was asked."""
    judge = spec.judging
    assert judge is not None
    begun = search.engine.begun
    contest = Contest(search, judge, search.engine.problem, [begun + text for text in texts], answers)
    return await (contest.tournament() if spec.select == "tournament" else contest.genselect()), contest.matches


@dataclass(slots=True)
class Contest:
    """Texts that a judge ranks. They are named by their places in the list.

    answers: what each text answers, None if nothing; a judge is not asked to choose among equal answers.
    matches: what the judge was asked: some places, and the votes for each.
    """

    search: Search
    judge: Judging
    problem: str
    texts: Sequence[str]
    answers: Sequence[str | None]
    matches: list[tuple[list[int], judging.Votes]] = field(default_factory=list)

    async def tournament(self) -> list[int]:
        """Ranks by a knockout tournament. In its first round the earliest have byes, so that the others are a power of
        two. Where the votes are equal the earlier one wins.
        """
        going: list[int] = list(range(len(self.texts)))
        lost: list[int] = []
        while len(going) > 1:
            num_byes = (1 << (len(going) - 1).bit_length()) - len(going)
            winners, losers = await self._play(going[num_byes:])
            going, lost = [*going[:num_byes], *winners], [*losers, *lost]
        return self._unless_unread([*going, *lost])

    async def genselect(self) -> list[int]:
        """Ranks by choices among all. Texts that do not fit together are judged in groups, and then their winners."""
        going: list[int] = list(range(len(self.texts)))
        lost: list[int] = []
        while len(going) > 1 and not self._are_equal(going):
            groups = await self._choose(going)
            if len(groups) == len(going):  # no two of them fit
                break
            ranked = [
                [place for _, place in sorted(zip(votes, places, strict=False), key=lambda one: -one[0])]
                for places, votes in groups
            ]
            going, lost = [first for first, *_ in ranked], [*(place for _, *rest in ranked for place in rest), *lost]
        return self._unless_unread([*going, *lost])

    async def _play(self, places: Sequence[int]) -> tuple[list[int], list[int]]:
        """Lets each two in a row play. Returns the winners and the losers."""
        pairs = list(zip(places[::2], places[1::2], strict=True))
        asked = [pair for pair in pairs if not self._are_equal(pair)]
        texts = [(self.texts[first], self.texts[second]) for first, second in asked]
        votes = await judging.compare(self.search, self.judge, self.problem, texts)
        self.matches += [([*pair], told) for pair, told in zip(asked, votes, strict=True)]
        second_wins = {pair for pair, told in zip(asked, votes, strict=True) if told[1] > told[0]}
        winners = [pair[pair in second_wins] for pair in pairs]
        return winners, [pair[pair not in second_wins] for pair in pairs]

    async def _choose(self, places: list[int]) -> list[tuple[list[int], judging.Votes]]:
        """Returns groups in order, each with its votes. What does not fit is halved until it does, or is alone."""
        told: dict[int, tuple[list[int], judging.Votes]] = {}
        groups = [places]
        while groups:
            texts = [[self.texts[place] for place in group] for group in groups]
            halves = []
            for group, votes in zip(
                groups, await judging.choose(self.search, self.judge, self.problem, texts), strict=True
            ):
                if votes is not None:
                    told[places.index(group[0])] = group, votes
                    self.matches.append((group, votes))
                else:
                    half = (len(group) + 1) // 2
                    halves += [group[:half], group[half:]]
            told |= {places.index(group[0]): (group, [0, 0]) for group in halves if len(group) == 1}
            groups = [group for group in halves if len(group) > 1]
        return [told[first] for first in sorted(told)]

    def _are_equal(self, places: Sequence[int]) -> bool:
        return self.answers[places[0]] is not None and len({self.answers[place] for place in places}) == 1

    def _unless_unread(self, order: list[int]) -> list[int]:
        """Returns the order, or the one that the texts had if the judge said nothing that could be read."""
        return order if any(any(votes[:-1]) for _, votes in self.matches) else sorted(order)
