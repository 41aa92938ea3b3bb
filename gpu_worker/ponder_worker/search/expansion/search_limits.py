"""What a job's sequences may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """tokens: of the job in all; tokens_per_sample: of one path; room_tokens: what the context leaves to a path.

    thinking_tokens: of one sample's thought, which is closed then.
    """

    tokens: int | None
    tokens_per_sample: int | None
    room_tokens: int
    thinking_tokens: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether a sample's limit was set by a person, rather than by the model's context."""
        return self.tokens_per_sample is not None and self.tokens_per_sample <= self.room_tokens

    def left(self, made: int) -> int:
        """Tokens that a path of so many may still grow by."""
        limit = self.room_tokens
        if self.tokens_per_sample is not None:
            limit = min(limit, self.tokens_per_sample)
        return max(0, limit - made)
