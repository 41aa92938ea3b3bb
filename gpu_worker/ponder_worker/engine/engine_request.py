"""Checks what was asked for, and makes a sequence of it. All functions raise InvalidRequest or OversizedRequest."""

from collections.abc import Sequence as Series
from itertools import pairwise

from ponder_worker.engine.engine_error import InvalidRequest
from ponder_worker.engine.engine_limits import EngineLimits
from ponder_worker.engine.sampling.grammars import Grammars
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.sampling.stop_strings import StopStrings
from ponder_worker.engine.sequence import Sequence
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.readout import Readout


def generation(
    tokens: Series[int],
    prompt_length: int,
    sampling: SamplingParams,
    tokenizer: Tokenizer,
    limits: EngineLimits,
    *,
    grammars: Grammars,
    turn_start: int | None = None,
) -> Sequence:
    """Makes a sequence that generates. Tokens after prompt_length were generated before; they may already complete it.

    turn_start: where the text that the sequence continues begins in the prompt; None if it continues none.
    """
    if not 1 <= prompt_length <= len(tokens):
        raise InvalidRequest(f"prompt_length is {prompt_length}; it must be 1 to the number of tokens, {len(tokens)}")
    turn_start = prompt_length if turn_start is None else turn_start
    if not 0 <= turn_start <= prompt_length:
        raise InvalidRequest(f"turn_start is {turn_start}; it must be 0 to prompt_length, {prompt_length}")
    limits.check(tokens, prompt_length + sampling.max_tokens)
    limits.check_ids("logit_bias", [token for token, _ in sampling.logit_bias])
    limits.check_ids("stop_token_ids", list(sampling.stop_token_ids))
    stop_ids = tokenizer.eos_token_ids if sampling.stop_at_end else frozenset[int]()
    if sampling.stop_token_ids:  # otherwise all sequences share one set
        stop_ids |= sampling.stop_token_ids
    before = tokens[turn_start:prompt_length]
    matcher = None
    if sampling.structure is not None:
        matcher = grammars.matcher(sampling.structure, stop_ids)
        matcher.push_all(before)
    sequence = Sequence(
        list(tokens),
        prompt_length,
        sampling,
        turn_start=turn_start,
        stop_token_ids=stop_ids,
        stop_strings=_stop_strings(sampling, before, tokenizer),
        matcher=matcher,
    )
    for num_generated, token in enumerate(sequence.tokens[prompt_length:], 1):
        sequence.check_stop(token, num_generated)
    return sequence


def _stop_strings(sampling: SamplingParams, before: Series[int], tokenizer: Tokenizer) -> StopStrings | None:
    """Makes the watcher of stop strings. It reads only those of the preceding ids in which a string may begin."""
    if not sampling.stop_strings and sampling.separator is None:
        return None
    first = len(before)
    # A character has at most four bytes, and the first one may be cut.
    num_bytes = 4 * max(map(len, sampling.stop_strings), default=1) - 1
    while first and num_bytes > 0:
        first -= 1
        num_bytes -= len(tokenizer.bytes_of(before[first]))
    return StopStrings(sampling.stop_strings, tokenizer, separator=sampling.separator, before=before[first:])


def scoring(tokens: Series[int], start: int, limits: EngineLimits) -> Sequence:
    """Makes a sequence whose tokens[start:] are scored."""
    if not 1 <= start < len(tokens):
        raise InvalidRequest(f"start is {start}; it must be 1 to the last token's index, {len(tokens) - 1}")
    limits.check(tokens, len(tokens))
    return Sequence(list(tokens), start, None)


def reading(tokens: Series[int], marks: Series[int], readout: Readout, limits: EngineLimits) -> Sequence:
    """Makes a sequence that is read at the marks, which are positions in rising order."""
    rising = all(low < high for low, high in pairwise((-1, *marks, len(tokens))))
    if not marks or not rising:
        raise InvalidRequest(f"marks are {list(marks)}; they must be rising positions of {len(tokens)} tokens")
    limits.check(tokens, len(tokens))
    return Sequence(list(tokens), marks[0] + 1, None, marks=tuple(marks), readout=readout)
