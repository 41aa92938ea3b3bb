"""How many tokens a job and each of its paths may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """Limits in tokens; None where there is none.

    tokens: for the whole job. tokens_per_sample: for one path. room_tokens: what the context leaves for a path.
    thinking_tokens: for one sample's thought, which is closed when it reaches them.
    """

    tokens: int | None
    tokens_per_sample: int | None
    room_tokens: int
    thinking_tokens: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether a sample's limit was set by the user, rather than by the model's context."""
        return self.tokens_per_sample is not None and self.tokens_per_sample <= self.room_tokens

    def left(self, num_tokens: int) -> int:
        """Returns how many tokens a path of `num_tokens` may still grow by."""
        limit = self.room_tokens
        if self.tokens_per_sample is not None:
            limit = min(limit, self.tokens_per_sample)
        return max(0, limit - num_tokens)
