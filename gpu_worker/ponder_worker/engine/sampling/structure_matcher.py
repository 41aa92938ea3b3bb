"""The structure that a text is held to, and how far one text has come in it."""

from collections.abc import Iterable
from collections.abc import Sequence as Series
from dataclasses import dataclass

from llguidance import LLMatcher


@dataclass(frozen=True, slots=True)
class Structure:
    """The form that a text is held to, from its beginning or, if the model thinks first, from the end of its thought.

    grammar: as llguidance reads it. open_id, close_id: the marks around a thought, which mean nothing in the structure;
    None where the model has none. is_open: whether a thought is open where the text begins. may_open: whether the
    text may begin with a thought.
    """

    grammar: str
    open_id: int | None = None
    close_id: int | None = None
    is_open: bool = False
    may_open: bool = False


@dataclass(frozen=True, slots=True)
class TextTokens:
    """Ids that mean something of their own to a text.

    end_ids: ids that end it where the structure allows an end, beside the model's own. ignored_ids: the model's own
    ends that never end it. blank_ids: ids of nothing but spaces, which are skipped between a thought and the structure
    unless the structure begins with them.
    """

    end_ids: Series[int]
    ignored_ids: Series[int]
    blank_ids: frozenset[int]


class StructureMatcher:
    """How far one text has come in its structure. It follows from the text's ids alone."""

    __slots__ = ("_at_start", "_has_begun", "_is_stuck", "_structure", "_tokens", "is_free", "matcher", "may_change")

    def __init__(self, structure: Structure, matcher: LLMatcher, tokens: TextTokens) -> None:
        """Starts at the beginning of a text. matcher: in its first state, and this object's own."""
        self._structure = structure
        self._tokens = tokens
        self.matcher = matcher
        """The grammar's own state, which says what may follow unless the text `is_free`."""
        self._at_start = True
        self._has_begun = not structure.is_open
        self.is_free = structure.is_open
        """Whether the text is in a thought, which is held to nothing."""
        self._is_stuck = False
        self.may_change = bool(tokens.end_ids or tokens.ignored_ids) or structure.close_id is not None
        """Whether `changes` may say anything."""

    @property
    def is_stuck(self) -> bool:
        """Whether the text does not fit the structure, or the structure is too complex to go on."""
        return self._is_stuck or self.matcher.is_error()

    @property
    def may_end(self) -> bool:
        """Whether the text may end here: in a thought it always may."""
        return not self.is_stuck and (self.is_free or self.matcher.is_accepting())

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow."""
        return not self.is_free and self.matcher.is_stopped() and not self.is_stuck  # most are not stopped

    def push(self, token: int) -> None:
        """Takes the text's next id."""
        at_start, self._at_start = self._at_start, False
        if self.is_free:
            self.is_free = token != self._structure.close_id
        elif at_start and self._structure.may_open and token == self._structure.open_id:
            self.is_free, self._has_begun = True, False
        elif self._has_begun or not self._is_skipped(token):
            self._has_begun = True
            self._is_stuck = self._is_stuck or not self.matcher.consume_token(token)

    def _is_skipped(self, token: int) -> bool:
        """Whether a token before the beginning of the structure only parts it from the thought."""
        return token in self._tokens.blank_ids and not self.matcher.validate_tokens([token])

    def push_all(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            self.push(token)

    def changes(self) -> tuple[Series[int], Series[int]]:
        """Returns ids that may follow beside those of the grammar, and ids that may not."""
        structure, tokens = self._structure, self._tokens
        opens = (structure.open_id,) if self._at_start and structure.may_open and structure.open_id is not None else ()
        ends = tokens.end_ids if self.matcher.is_accepting() else ()
        marks = [mark for mark in (structure.open_id, structure.close_id) if mark is not None and mark not in opens]
        return (*opens, *ends), (*marks, *tokens.ignored_ids)
