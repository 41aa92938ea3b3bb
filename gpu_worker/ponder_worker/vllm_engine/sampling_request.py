"""The parameters of a request, in vLLM's terms."""

from collections.abc import Mapping
from collections.abc import Sequence as Series
from dataclasses import asdict, dataclass
from typing import Any

from ponder_worker.engine.sampling.sampler import keys
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.sampling.structure_matcher import Structure
from ponder_worker.engine.sequence import Sequence

EXTRA = "ponder"
"""The name under which `Extra` travels with a request."""


@dataclass(frozen=True, slots=True)
class Extra:
    """The changes that `NodeLogits` makes to a request's logits.

    It crosses to executors, so it holds lists, numbers and texts only.

    turn_start: where the text that penalties count, and that a structure holds, begins in the request's prompt.
    min_tokens: those to come yet.
    """

    turn_start: int
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Series[tuple[int, float]] = ()
    min_tokens: int = 0
    stop_ids: Series[int] = ()
    structure: Structure | None = None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Extra":
        """Returns what `asdict` took apart."""
        structure = fields["structure"]
        return cls(**{**fields, "structure": None if structure is None else Structure(**structure)})


def generation_params(sequence: Sequence, sampling: SamplingParams) -> Any:
    """Returns vLLM's parameters for a sequence to go on from its last token.

    The engine looks for ends itself, because a stop string may begin in text that vLLM takes for a part of the prompt.
    """
    from vllm.sampling_params import RequestOutputKind
    from vllm.sampling_params import SamplingParams as Params

    extra = _extra(sequence, sampling)
    return Params(
        max_tokens=sequence.max_length - len(sequence.tokens),
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        seed=_seed(sampling.seed, len(sequence.tokens)) if sampling.temperature else None,
        logprobs=sampling.top_logprobs,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args=None if extra is None else {EXTRA: asdict(extra)},
        skip_clone=True,
    )


def score_params(next_ids: Series[int], *, reads_prompt: bool = False, reads_cache: bool = True) -> Any:
    """Returns vLLM's parameters for the log-probabilities of `next_ids`, each as the one after the prompt.

    reads_prompt: also those of the prompt's tokens, at least of those that are not found in the prefix cache.
    """
    from vllm.sampling_params import SamplingParams as Params

    return Params(
        max_tokens=1,
        temperature=0.0,
        logprob_token_ids=list(next_ids),
        prompt_logprobs=0 if reads_prompt else None,
        ignore_eos=True,
        detokenize=False,
        skip_reading_prefix_cache=not reads_cache,
        skip_clone=True,
    )


def _seed(seed: int, position: int) -> int:
    """Returns the seed of a request that begins at a position: vLLM draws from its start on whatever it resumes."""
    return int(keys([seed], [position])[0]) >> 1  # torch takes 63 bits


def _extra(sequence: Sequence, sampling: SamplingParams) -> Extra | None:
    num_missing = max(0, sampling.min_tokens - (len(sequence.tokens) - sequence.prompt_length))
    if not (sampling.edits_logits or num_missing):
        return None
    return Extra(
        turn_start=sequence.turn_start,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        logit_bias=sampling.logit_bias,
        min_tokens=num_missing,
        stop_ids=sorted(sequence.stop_token_ids),
        structure=sampling.structure,
    )
