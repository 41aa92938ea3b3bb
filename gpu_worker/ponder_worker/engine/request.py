"""Sequences made of what was asked for, after it was looked at. All raise InvalidRequest, OversizedRequest."""

from collections.abc import Sequence as Series
from itertools import pairwise

from ponder_worker.engine.errors import InvalidRequest
from ponder_worker.engine.limits import Limits
from ponder_worker.engine.sampling import Sampling
from ponder_worker.engine.sequence import Sequence
from ponder_worker.engine.stop import StopStrings
from ponder_worker.models.readout import Readout
from ponder_worker.models.tokenizer import Tokenizer


def generation(
    tokens: Series[int], prompt_length: int, sampling: Sampling, tokenizer: Tokenizer, limits: Limits
) -> Sequence:
    """Tokens after prompt_length were generated before; if they were all, it is finished."""
    if not 1 <= prompt_length <= len(tokens):
        raise InvalidRequest(f"prompt_length is {prompt_length}; it must be 1 to the number of tokens, {len(tokens)}")
    limits.check(tokens, prompt_length + sampling.max_tokens)
    limits.check_ids("logit_bias", [token for token, _ in sampling.logit_bias])
    stop_ids = sampling.stop_token_ids | (tokenizer.eos_token_ids if sampling.stop_at_end else frozenset())
    stops = StopStrings(sampling.stop_strings, tokenizer.stream()) if sampling.stop_strings else None
    sequence = Sequence(list(tokens), prompt_length, sampling, stop_token_ids=stop_ids, stop_strings=stops)
    for number, token in enumerate(sequence.tokens[prompt_length:], 1):
        sequence.inspect(token, number)
    return sequence


def scoring(tokens: Series[int], start: int, limits: Limits) -> Sequence:
    """Of tokens[start:]."""
    if not 1 <= start < len(tokens):
        raise InvalidRequest(f"start is {start}; it must be 1 to the last token's index, {len(tokens) - 1}")
    limits.check(tokens, len(tokens))
    return Sequence(list(tokens), start, None)


def reading(tokens: Series[int], marks: Series[int], readout: Readout, limits: Limits) -> Sequence:
    """At the marks, positions in rising order."""
    rising = all(low < high for low, high in pairwise((-1, *marks, len(tokens))))
    if not marks or not rising:
        raise InvalidRequest(f"marks are {list(marks)}; they must be rising positions of {len(tokens)} tokens")
    limits.check(tokens, len(tokens))
    return Sequence(list(tokens), marks[0] + 1, None, marks=tuple(marks), readout=readout)
