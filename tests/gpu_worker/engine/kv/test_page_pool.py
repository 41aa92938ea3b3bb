"""Random lives of sequences over one pool, which checks itself after every step."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.kv.prefix_cache import PrefixMatch
from ponder_worker.engine.page_table import PageTable

PAGE = 4


def found(pool: PagePool, table: PageTable, tokens: list[int]) -> PrefixMatch:
    """Looks up the pages of a sequence that sees all its tokens."""
    return pool.prefixes.match([table], tokens, [None], len(tokens))


class Stream:
    def __init__(self, tokens: list[int], salt: bytes) -> None:
        self.tokens = tokens
        self.table = PageTable(salt)


class PagesMachine(RuleBasedStateMachine):
    """`written` is what a tensor would hold: for each page the salt, and all tokens up to its end."""

    @initialize(num_pages=st.integers(1, 12))
    def start(self, num_pages: int) -> None:
        self.pool = PagePool(num_pages, PAGE)
        self.streams: list[Stream] = []
        self.written: dict[int, tuple[bytes, tuple[int, ...]]] = {}

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=20), salt=st.sampled_from([b"", b"salt"]))
    def arrive(self, tokens: list[int], salt: bytes) -> None:
        self._begin(tokens, salt)

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        parent = data.draw(st.sampled_from(self.streams))
        self._begin(parent.tokens[: data.draw(st.integers(1, len(parent.tokens)))], parent.table.salt)

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), tokens=st.lists(st.integers(0, 1), min_size=1, max_size=9))
    def extend(self, data: st.DataObject, tokens: list[int]) -> None:
        stream = data.draw(st.sampled_from(self.streams))
        pages = list(stream.table.pages)
        free = self.pool.num_free
        grown = stream.tokens + tokens
        if self.pool.grow(stream.table, len(grown)):
            stream.tokens = grown
            self._write(stream)
        else:
            assert (list(stream.table.pages), self.pool.num_free) == (pages, free)
            assert self.pool.pages_for(len(grown)) - len(pages) > free

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(self.streams))
        self.pool.release(stream.table)
        self.streams.remove(stream)

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def preempt_and_resume(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(self.streams))
        self.pool.release(stream.table)
        self.streams.remove(stream)
        self._begin(stream.tokens, stream.table.salt)

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def leave_a_part_for_others(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(self.streams))
        computed = data.draw(st.integers(0, len(stream.tokens)))
        self.pool.prefixes.register_partial(stream.table, stream.tokens, computed)

    @invariant()
    def free_and_held_pages_are_all_pages(self) -> None:
        if hasattr(self, "pool"):
            self.pool.check(stream.table for stream in self.streams)

    def _begin(self, tokens: list[int], salt: bytes) -> None:
        stream = Stream(tokens, salt)
        stream.table.key_tokens(tokens, PAGE)
        match = found(self.pool, stream.table, tokens)
        for index, page in enumerate(match.pages[0]):
            assert self.written[page] == (salt, tuple(tokens[: (index + 1) * PAGE]))
        if match.num_partial:  # the page was written by a sequence that had the same tokens so far
            num_known = len(match.pages[0]) * PAGE + match.num_partial
            assert self.written[match.partial_pages[0]][0] == salt
            assert self.written[match.partial_pages[0]][1][:num_known] == tuple(tokens[:num_known])
        self.pool.share(stream.table, match.pages[0])
        if self.pool.grow(stream.table, len(tokens)):
            self.streams.append(stream)
            self._write(stream)
        else:
            self.pool.release(stream.table)

    def _write(self, stream: Stream) -> None:
        first = stream.table.num_registered
        for index in range(first, len(stream.table.pages)):
            self.written[stream.table.pages[index]] = (stream.table.salt, tuple(stream.tokens[: (index + 1) * PAGE]))
        stream.table.key_tokens(stream.tokens, PAGE)
        self.pool.prefixes.register(stream.table, len(stream.tokens))


TestPages = PagesMachine.TestCase
TestPages.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_a_released_prefix_is_found_again_until_its_pages_are_needed_longest_unused_first() -> None:
    pool = PagePool(4, PAGE)
    older, newer = PageTable(), PageTable()
    for table, tokens in ((older, [1] * 8), (newer, [2] * 8)):
        table.key_tokens(tokens, PAGE)
        assert pool.grow(table, 8)
        pool.prefixes.register(table, 8)
        pool.release(table)
    assert (len(found(pool, older, [1] * 8).pages[0]), len(found(pool, newer, [2] * 8).pages[0])) == (2, 2)
    assert pool.grow(PageTable(), 4)
    assert (len(found(pool, older, [1] * 8).pages[0]), len(found(pool, newer, [2] * 8).pages[0])) == (1, 2)


def test_pages_that_hold_nothing_are_taken_before_one_that_can_be_found() -> None:
    pool, table = PagePool(4, PAGE), PageTable()
    table.key_tokens([1] * PAGE, PAGE)
    assert pool.grow(table, PAGE)
    pool.prefixes.register(table, PAGE)
    pool.release(table)
    assert [pool.evicts(num_pages) for num_pages in (0, 3, 4)] == [False, False, True]
    assert pool.grow(PageTable(), 3 * PAGE)
    assert len(found(pool, table, [1] * PAGE).pages[0]) == 1


def test_pages_of_equal_key_and_other_tokens_are_not_taken_for_the_same() -> None:
    pool = PagePool(4, PAGE)
    table = PageTable()
    table.key_tokens([1] * 4, PAGE)
    assert pool.grow(table, 4)
    pool.prefixes.register(table, 4)
    impostor = PageTable()
    impostor.key_tokens([2] * 4, PAGE)
    impostor.keys = table.keys
    assert found(pool, impostor, [2] * 4).pages[0] == []


def test_what_was_given_away_and_is_computed_again_is_counted_as_thrash() -> None:
    pool = PagePool(3, PAGE)
    first, second = PageTable(), PageTable()
    for table, token in ((first, 1), (second, 2), (first, 1)):
        table.key_tokens([token] * 8, PAGE)
        pool.share(table, found(pool, table, [token] * 8).pages[0])
        assert pool.grow(table, 8)
        pool.prefixes.register(table, 8)
        pool.release(table)
    assert (pool.prefixes.num_evicted, pool.prefixes.num_thrashed) == (2, 1)
    assert (pool.num_held, pool.num_referenced) == (0, 0)


def test_pages_of_a_family_are_referenced_more_often_than_they_are_held() -> None:
    pool = PagePool(8, PAGE)
    tables = [PageTable() for _ in range(3)]
    for table in tables:
        table.key_tokens([1] * 8, PAGE)
        pool.share(table, found(pool, table, [1] * 8).pages[0])
        assert pool.grow(table, 9)
        pool.prefixes.register(table, 8)
    assert (pool.num_held, pool.num_referenced) == (5, 9)


def test_the_emptiest_slab_is_given_up_and_its_held_pages_are_found_where_they_went() -> None:
    copied: list[tuple[int, int]] = []
    pool = PagePool(6, PAGE, slab_pages=2, copy=copied.extend)
    for slab in (2, 1, 0):
        pool.add_slab(slab)
    tables = {token: PageTable() for token in range(6)}
    for token, table in tables.items():
        table.key_tokens([token] * PAGE, PAGE)
        assert pool.grow(table, PAGE)
        pool.prefixes.register(table, PAGE)
    for table in (tables.pop(5), tables.pop(2)):
        pool.release(table)
    assert pool.give_up_slab() == 1
    assert copied == [(3, 5)]
    assert [list(table.pages) for table in tables.values()] == [[0], [1], [5], [4]]
    for token, table in tables.items():
        assert found(pool, table, [token] * PAGE).pages[0] == list(table.pages)
    pool.check(tables.values())
    assert (pool.num_held, pool.num_free) == (4, 0)
    assert pool.slabs == {0, 2}


def test_no_more_tables_are_looked_at_than_have_to_be_released() -> None:
    pool = PagePool(12, PAGE)
    tables = [PageTable() for _ in range(5)]
    for table in tables:
        pool.grow(table, 2 * PAGE)
    left = iter(tables)
    assert pool.num_free_after(left, 5) == 6  # two are free, and two each of the first two
    assert tables[3:] == list(left)
    assert pool.num_free_after(tables, 100) == 12


def test_a_page_that_was_computed_again_is_found_in_place_of_the_older_one() -> None:
    pool = PagePool(4, PAGE)
    older, newer = PageTable(), PageTable()
    for table in (older, newer):
        table.key_tokens([1] * PAGE, PAGE)
        assert pool.grow(table, PAGE)
        pool.prefixes.register(table, PAGE)
    pool.release(older)
    assert found(pool, newer, [1] * PAGE).pages == [list(newer.pages)]
    assert pool.grow(PageTable(), 3 * PAGE)
    assert found(pool, newer, [1] * PAGE).pages == [list(newer.pages)]
