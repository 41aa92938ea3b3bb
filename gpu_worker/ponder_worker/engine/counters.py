"""The counts of an engine since it was made."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Totals in tokens, unless the name says otherwise.

    prefix_queries, prefix_hits: tokens looked up in the prefix cache, and tokens found there.
    recomputed_tokens: computed again after a preemption. returned_tokens: copied back from host memory instead.
    wasted_tokens: computed for a sequence that had already ended, because the step was planned before that was known.
    num_copied_pages: partly filled pages that were copied for a fork.
    """

    prompt_tokens: int = 0
    generated_tokens: int = 0
    scored_tokens: int = 0
    computed_tokens: int = 0
    recomputed_tokens: int = 0
    returned_tokens: int = 0
    wasted_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    num_preemptions: int = 0
    num_steps: int = 0
    num_copied_pages: int = 0
