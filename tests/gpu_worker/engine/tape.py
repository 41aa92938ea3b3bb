"""A runner that computes nothing: it keeps, for each slot of each page, the tokens that its keys and values would
depend on, and looks whether every chunk finds its whole context.
"""

from collections import deque

from ponder_worker.engine.scheduling.scheduler import Scheduler
from ponder_worker.engine.scheduling.step_plan import Output, Plan, Result
from ponder_worker.engine.sequence import Sequence

PAGE = 4
Content = tuple[bytes, tuple[int, ...]]
Slot = tuple[int, int, int]


class Tape:
    """slabs: what stands in a memory, slab by slab: (whose, page, offset) -> the salt and all tokens up to the one
    written there. Several tapes may share one.
    """

    def __init__(self, slabs: dict[int, dict[Slot, Content]] | None = None, slab_pages: int = 1 << 30) -> None:
        self.slabs = {} if slabs is None else slabs
        self.parked: dict[tuple[int, int], Content] = {}
        self._slab_pages = slab_pages
        self._sampled: dict[Sequence, int] = {}  # by the step that ran last

    def run(self, plan: Plan) -> Result:
        self.copy(plan.copies)
        for source, target in plan.returns:
            for offset in range(PAGE):
                if (source, offset) in self.parked:
                    self._write(target, offset, self.parked[source, offset])
        views = [self._view(chunk.sequence, chunk.end) for chunk in plan.chunks]
        written = set()
        for chunk, view in zip(plan.chunks, views, strict=True):
            table = chunk.sequence.table
            for position in range(max(chunk.start, chunk.write_from), chunk.end):
                slot = (table.pages[position // PAGE], position % PAGE)
                assert slot not in written, "two tokens of a step write one slot"
                written.add(slot)
                self._write(*slot, (table.salt, view[: position + 1]))
        tokens: list[int | None] = []
        logprobs: list[list[float]] = []
        for chunk, view in zip(plan.chunks, views, strict=True):
            sequence = chunk.sequence
            for position in range(chunk.end):
                found = self._read(sequence.table.pages[position // PAGE], position % PAGE)
                assert found == (sequence.table.salt, view[: position + 1])
            tokens.append(sum(view) % 2 if chunk.samples else None)
            scored = int(chunk.samples)
            if sequence.sampling is None:
                scored = max(0, chunk.end - max(chunk.start, sequence.first_needed))
            logprobs.append([-1.0] * scored)
        self._sampled = {
            chunk.sequence: token for chunk, token in zip(plan.chunks, tokens, strict=True) if token is not None
        }
        return Result(tokens, logprobs, [0.0] * len(plan.chunks))

    def copy(self, pairs: list[tuple[int, int]]) -> None:
        targets = [target for _, target in pairs]
        assert len({*targets}) == len(targets), "a page is copied to twice"
        assert not {*targets} & {source for source, _ in pairs}, "a page is copied both from and to"
        for source, target in pairs:
            for offset in range(PAGE):
                if (content := self._find(source, offset)) is not None:
                    self._write(target, offset, content)

    def park(self, pairs: list[tuple[int, int]]) -> None:
        for source, target in pairs:
            for offset in range(PAGE):
                self.parked.pop((target, offset), None)
                if (content := self._find(source, offset)) is not None:
                    self.parked[target, offset] = content

    def _view(self, sequence: Sequence, end: int) -> tuple[int, ...]:
        """The sequence's tokens and the one that the step before sampled, if it does not know it yet."""
        known = tuple(sequence.tokens[:end])
        return known if len(known) == end else (*known, self._sampled[sequence])

    def _find(self, page: int, offset: int) -> Content | None:
        return self.slabs.setdefault(page // self._slab_pages, {}).get((id(self), page, offset))

    def _read(self, page: int, offset: int) -> Content:
        return self.slabs[page // self._slab_pages][id(self), page, offset]

    def _write(self, page: int, offset: int, content: Content) -> None:
        slab = self.slabs.setdefault(page // self._slab_pages, {})
        assert all(owner == id(self) for owner, _, _ in slab), "two models write one slab"
        slab[id(self), page, offset] = content


class Line:
    """A scheduler and its tape; steps are committed as many steps late as `ahead` says."""

    def __init__(self, scheduler: Scheduler, tape: Tape, ahead: int = 0) -> None:
        self.scheduler = scheduler
        self.tape = tape
        self._ahead = ahead
        self._flights: deque[tuple[Plan, Result]] = deque()

    @property
    def has_work(self) -> bool:
        return bool(self.scheduler.running or self.scheduler.waiting or self._flights)

    def step(self) -> list[Output]:
        plan = self.scheduler.plan()
        self.scheduler.check()
        if not plan.is_empty:
            self._flights.append((plan, self.tape.run(plan)))
            if len(self._flights) <= self._ahead:
                return []
        if not self._flights:
            return []
        outputs = self.scheduler.commit(*self._flights.popleft())
        self.scheduler.check()
        return outputs

    def finish(self) -> list[Sequence]:
        """-> sequences in the order in which they ended."""
        ended = []
        for _ in range(5000):
            if not self.has_work:
                return ended
            ended += [output.sequence for output in self.step() if output.finish_reason]
        raise AssertionError("it does not end")
