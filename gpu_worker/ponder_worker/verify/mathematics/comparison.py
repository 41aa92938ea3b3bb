"""Compares answers as mathematics: lists, sets, tuples, equations, quantities and single expressions.

All texts are plain (`answers.writing.plain`). The answer comes first, the reference second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ponder.domain.verifier import Math
from ponder_worker.answers.equality import assigned, identity, interval_of
from ponder_worker.answers.numeral import read_european, read_numeral
from ponder_worker.answers.parts import Parts, Relation, split_parts, split_relation
from ponder_worker.verify.mathematics.members import (
    are_named,
    by_name,
    can_be_numbered,
    has_signs,
    is_assigned_number,
    members,
    parts_of,
    union,
)
from ponder_worker.verify.mathematics.quantity import same_formula, same_quantity
from ponder_worker.verify.mathematics.solution import contradicts_itself, same_solutions
from ponder_worker.verify.mathematics.written import same_writing

_MOST_ITEMS = 100


@dataclass(frozen=True, slots=True)
class Comparison:
    spec: Math

    def same(self, found: str, wanted: str) -> bool:
        """Returns whether they are equal in full. A text that cannot be read is equal only to an identical text."""
        if identity(found) == identity(wanted) or same_solutions(found, wanted):
            return True
        for compare in (self._as_numbers, self._as_lists, self._as_relations, self._as_writings):
            if (verdict := compare(found, wanted)) is not None:
                return verdict
        return self._as_formulas(found, wanted)

    def _as_numbers(self, found: str, wanted: str) -> bool | None:
        one, other = read_numeral(found), read_numeral(wanted)
        if one is not None and other is not None:
            return same_quantity(one, other, self.spec)
        if one is not None and (one.places is not None or wanted.count(".") > 1):
            return True if read_european(wanted) == one.value else None
        if other is not None and (other.places is not None or found.count(".") > 1):
            return True if read_european(found) == other.value else None
        return None

    def _as_lists(self, found: str, wanted: str) -> bool | None:
        if is_assigned_number(found) or is_assigned_number(wanted):
            return None
        one, other = parts_of(found), parts_of(wanted)
        if one is None and other is None:
            return self._same_items([found], [wanted]) if has_signs(found + wanted) else None
        if one is None and other is not None and are_named(other.items):
            one = by_name(found)
        elif other is None and one is not None and are_named(one.items):
            other = by_name(wanted)
        if one is None or other is None:
            return self._same_as_single(one, found, other, wanted)
        if one.kind == other.kind and one.kind in ("tuple", "interval"):
            brackets = (one.opening, one.closing) == (other.opening, other.closing)
            return brackets and self._in_order(one.items, other.items)
        kinds = {one.kind, other.kind}
        if kinds <= {"list", "set"}:
            return self._same_items(one.items, other.items, is_set="set" in kinds)
        is_numbered = can_be_numbered(one.items) and can_be_numbered(other.items)
        return kinds == {"list", "tuple"} and is_numbered and self._in_order(one.items, other.items)

    def _same_as_single(self, one: Parts | None, found: str, other: Parts | None, wanted: str) -> bool | None:
        """Compares parts with a text that has none, such as `x \\in …`, `1 \\pm 2`, a relation or a union."""
        parts, text = (one, wanted) if one is not None else (other, found)
        assert parts is not None
        if parts.kind == "list" and (pieces := union(text)) is not None:
            return self._match(list(parts.items), pieces) if len(parts.items) == len(pieces) else False
        if split_relation(text) is not None:
            return None
        if parts.kind == "set" and text == r"\emptyset":  # the set that contains it is another set
            return False
        if parts.kind in ("list", "set") and (has_signs(text) or parts.kind == "set"):
            items = (one.items, [wanted]) if one is not None else ([found], parts.items)
            return self._same_items(*items, is_set=parts.kind == "set")
        return False if parts.kind == "list" or read_numeral(text) is not None else None

    def _same_items(self, found: Sequence[str], wanted: Sequence[str], *, is_set: bool = False) -> bool:
        """Compares items in any order, or in order if the option says so or only one side has names."""
        one, other = members(found), members(wanted)
        if len(one) > _MOST_ITEMS or len(other) > _MOST_ITEMS:
            return one == other
        is_set = is_set or all(item.startswith("(") for item in (*one, *other))  # a repeated point counts once
        if self.spec.order == "kept" or are_named(one) != are_named(other):
            return self._in_order(one, other)
        if is_set:
            return all(any(self.same(a, b) for b in other) for a in one) and all(
                any(self.same(a, b) for a in one) for b in other
            )
        return len(one) == len(other) and self._match(one, other)

    def _match(self, one: list[str], other: list[str]) -> bool:
        left = list(other)
        for item in one:
            place = next((place for place, its in enumerate(left) if self.same(item, its)), None)
            if place is None:
                return False
            del left[place]
        return True

    def _in_order(self, found: Sequence[str], wanted: Sequence[str]) -> bool:
        return len(found) == len(wanted) and all(map(self.same, found, wanted))

    def _as_relations(self, found: str, wanted: str) -> bool | None:
        """Compares relations. `x = 5` is 5 and `x \\in S` is S if the other side has the same name or none."""
        one, other = split_relation(found), split_relation(wanted)
        if other is not None and contradicts_itself(other):
            return False
        if one is not None and other is not None:
            return self._as_two_relations(one, other, found, wanted)
        if one is not None:
            pair = assigned(one)
            return self.same(pair[1], wanted) if pair else self._as_interval(one, wanted)
        if other is not None:
            pair = assigned(other)
            return self.same(found, pair[1]) if pair else self._as_interval(other, found)
        return None

    def _as_two_relations(self, one: Relation, other: Relation, found: str, wanted: str) -> bool | None:
        left, right = assigned(one), assigned(other)
        if left and right:
            if left[0] == right[0] or not (left[0] and right[0]):
                return self.same(left[1], right[1])
            if (one.signs, other.signs) != (("=",), ("=",)):
                return False
        elif left and one.signs == ("in",):
            return self.same(left[1], wanted)
        elif right and other.signs == ("in",):
            return self.same(found, right[1])
        if one.signs != other.signs:
            return None
        is_same = self._in_order(one.sides, other.sides)
        return is_same or (set(one.signs) == {"="} and self._in_order(one.sides, other.sides[::-1])) or None

    def _as_interval(self, relation: Relation, other: str) -> bool | None:
        """Compares an inequality with an interval: `0 < f(x) < 1` is `(0, 1)`. An equation equals no interval."""
        if "=" in relation.signs:
            return False
        interval, parts = interval_of(relation), split_parts(other)
        if interval is None or parts is None or parts.kind not in ("tuple", "interval"):
            return None
        brackets = (interval.opening, interval.closing) == (parts.opening, parts.closing)
        return brackets and self._in_order(interval.items, parts.items)

    def _as_writings(self, found: str, wanted: str) -> bool | None:
        return same_writing(found, wanted, self.same)

    def _as_formulas(self, found: str, wanted: str) -> bool:
        if (one := union(found)) and (other := union(wanted)) and self._same_items(one, other):
            return True
        return same_formula(found, wanted, self.spec)
