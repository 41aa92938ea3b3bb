"""A runner that computes nothing, for tests of the scheduler and of the page tables."""

from collections import deque
from collections.abc import Sequence as Series
from itertools import product

from ponder_worker.engine.scheduling.scheduler import Scheduler
from ponder_worker.engine.sequence import Sequence
from ponder_worker.engine.step_plan import Output, StepPlan, StepResult

PAGE = 4
Content = tuple[bytes, int, tuple[int, ...]]
Slot = tuple[int, int, int]


class Tape:
    """Records for each slot of each page the tokens that its keys and values would depend on.

    It asserts that every chunk finds its whole context. The token that it samples is the parity of all tokens before.
    """

    def __init__(
        self,
        slabs: dict[int, dict[Slot, Content]] | None = None,
        slab_pages: int = 1 << 30,
        windows: Series[int | None] = (None,),
    ) -> None:
        """Records into `slabs`, the contents of a memory that several tapes may share.

        They are kept by slab, then by (tape, page, offset): the salt, the group of layers, and all tokens up to the one
        written there. windows: for each group, how many tokens a chunk's tokens look back on, their own included.
        """
        self._windows = windows
        self.slabs = {} if slabs is None else slabs
        self.on_host: dict[tuple[int, int], Content] = {}
        self._slab_pages = slab_pages
        self._sampled: dict[Sequence, int] = {}  # by the latest step

    def run(self, plan: StepPlan) -> StepResult:
        self.copy(plan.transfers.copies)
        for source, target in plan.transfers.returns:
            for offset in range(PAGE):
                if (source, offset) in self.on_host:
                    self._write(target, offset, self.on_host[source, offset])
        known = [self._known_tokens(chunk.sequence, chunk.end) for chunk in plan.chunks]
        written = set()
        for chunk, tokens in zip(plan.chunks, known, strict=True):
            positions = range(max(chunk.start, chunk.write_from), chunk.end)
            for table, position in product(chunk.sequence.tables, positions):
                slot = (table.pages[position // PAGE], position % PAGE)
                assert slot not in written, "two tokens of a step write one slot"
                written.add(slot)
                self._write(*slot, (table.salt, table.group, tokens[: position + 1]))
        sampled: list[int | None] = []
        logprobs: list[list[float]] = []
        for chunk, tokens in zip(plan.chunks, known, strict=True):
            sequence = chunk.sequence
            for table, window in zip(sequence.tables, self._windows, strict=True):
                oldest = 0 if window is None else max(0, chunk.start - window + 1)
                for position in range(oldest, chunk.end):
                    assert position // PAGE >= table.num_dropped
                    found = self._read(table.pages[position // PAGE], position % PAGE)
                    assert found == (table.salt, table.group, tokens[: position + 1])
            sampled.append(sum(tokens) % 2 if chunk.samples else None)
            num_values = int(chunk.samples)
            if sequence.sampling is None:
                num_values = max(0, chunk.end - max(chunk.start, sequence.first_needed))
            logprobs.append([-1.0] * num_values)
        self._sampled = {
            chunk.sequence: token for chunk, token in zip(plan.chunks, sampled, strict=True) if token is not None
        }
        return StepResult(sampled, logprobs, [0.0] * len(plan.chunks))

    def copy(self, pairs: list[tuple[int, int]]) -> None:
        targets = [target for _, target in pairs]
        assert len({*targets}) == len(targets), "a page is copied to twice"
        assert not {*targets} & {source for source, _ in pairs}, "a page is copied both from and to"
        for source, target in pairs:
            for offset in range(PAGE):
                if (content := self._find(source, offset)) is not None:
                    self._write(target, offset, content)

    def offload(self, pairs: list[tuple[int, int]]) -> None:
        for source, target in pairs:
            for offset in range(PAGE):
                self.on_host.pop((target, offset), None)
                if (content := self._find(source, offset)) is not None:
                    self.on_host[target, offset] = content

    def _known_tokens(self, sequence: Sequence, end: int) -> tuple[int, ...]:
        """Returns the first `end` tokens; the last may be one that the step before sampled and nobody committed yet."""
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


class TapeEngine:
    """A scheduler that plans for a tape. Steps are committed `num_steps_ahead` steps late."""

    def __init__(self, scheduler: Scheduler, tape: Tape, num_steps_ahead: int = 0) -> None:
        self.scheduler = scheduler
        self.tape = tape
        self._num_steps_ahead = num_steps_ahead
        self._in_flight: deque[tuple[StepPlan, StepResult]] = deque()

    @property
    def has_work(self) -> bool:
        return bool(self.scheduler.running or self.scheduler.waiting or self._in_flight)

    def step(self) -> list[Output]:
        plan = self.scheduler.plan()
        self.scheduler.check()
        if not plan.is_empty:
            self._in_flight.append((plan, self.tape.run(plan)))
            if len(self._in_flight) <= self._num_steps_ahead:
                return []
        if not self._in_flight:
            return []
        outputs = self.scheduler.commit(*self._in_flight.popleft())
        self.scheduler.check()
        return outputs

    def finish(self) -> list[Sequence]:
        """Returns sequences in the order in which they ended."""
        ended = []
        for _ in range(5000):
            if not self.has_work:
                return ended
            ended += [output.sequence for output in self.step() if output.finish_reason]
        raise AssertionError("a sequence never ends")
