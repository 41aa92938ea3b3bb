"""The sampling parameters of a request."""

from dataclasses import dataclass, field

from ponder_worker.engine.engine_error import InvalidSampling
from ponder_worker.engine.sampling.structure_matcher import Structure

_INFINITE = float("inf")


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The sampling parameters of one sequence. Raises InvalidSampling for a value out of range.

    temperature: 0 is greedy. Filters apply in the order of transformers: temperature, top_k, top_p, min_p; the values
    0, 1 and 0 switch the last three off.
    Logits are changed before that, in this order. logit_bias: pairs of a token id and what is added to its logit.
    repetition_penalty: counts prompt and generated tokens, 1 is off (https://arxiv.org/abs/1909.05858).
    presence_penalty, frequency_penalty: OpenAI's, count generated tokens only, those of the text it continues too.
    max_tokens, min_tokens: count from the end of the prompt. Before min_tokens nothing but the separator stops the
    sequence, and stop tokens are not sampled.
    stop_token_ids: a stop token is kept as the sequence's last one. stop_at_end: the model's end tokens stop it too.
    stop_strings: are looked for in generated text only.
    separator: a stop string that ends a step of a longer text; it must begin in the step that it ends.
    structure: what the text is held to; where nothing can follow, it ends. Stop tokens are sampled only where the
    structure allows an end, whatever min_tokens says of it.
    seed: 64 bits. top_logprobs: how many of the likeliest tokens are reported at each place, with log-probabilities.
    """

    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop_token_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()
    stop_at_end: bool = True
    seed: int = 0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    min_tokens: int = 0
    separator: str | None = None
    top_logprobs: int = 0
    structure: Structure | None = None
    # Derived once, because every step asks for them.
    filters: bool = field(init=False, repr=False, compare=False)
    """Whether some tokens are excluded from the choice."""
    penalises: bool = field(init=False, repr=False, compare=False)
    """Whether the choice depends on the tokens before it."""
    edits_logits: bool = field(init=False, repr=False, compare=False)
    """Whether logits are changed before the choice."""

    def __post_init__(self) -> None:
        # One expression comes first: a search makes thousands of these, and nearly all are valid.
        if not (
            self.max_tokens >= 1
            and 0.0 <= self.temperature < _INFINITE
            and self.top_k >= 0
            and 0.0 < self.top_p <= 1.0
            and 0.0 <= self.min_p <= 1.0
            and -2.0 <= self.presence_penalty <= 2.0
            and -2.0 <= self.frequency_penalty <= 2.0
            and "" not in self.stop_strings
            and self.separator != ""
            and 0 <= self.seed < 1 << 64
            and 0.0 < self.repetition_penalty < _INFINITE
            and 0 <= self.min_tokens <= self.max_tokens
            and self.top_logprobs >= 0
            and (not self.logit_bias or _are_valid_biases(self.logit_bias))
        ):
            _refuse(self)
        filters = self.temperature > 0 and (self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0)
        penalises = (self.presence_penalty, self.frequency_penalty, self.repetition_penalty) != (0.0, 0.0, 1.0)
        object.__setattr__(self, "filters", filters)
        object.__setattr__(self, "penalises", penalises)
        changes = penalises or bool(self.logit_bias) or self.structure is not None
        object.__setattr__(self, "edits_logits", changes)


def _are_valid_biases(biases: tuple[tuple[int, float], ...]) -> bool:
    return all(token >= 0 and -_INFINITE < bias < _INFINITE for token, bias in biases)


def _refuse(given: SamplingParams) -> None:
    """Raises InvalidSampling for the first field that is out of range."""
    for name, valid, wanted in (
        ("max_tokens", given.max_tokens >= 1, "at least 1"),
        ("temperature", 0.0 <= given.temperature < _INFINITE, "0 or more"),
        ("top_k", given.top_k >= 0, "0 (off) or more"),
        ("top_p", 0.0 < given.top_p <= 1.0, "above 0 and at most 1"),
        ("min_p", 0.0 <= given.min_p <= 1.0, "0 to 1"),
        ("presence_penalty", -2.0 <= given.presence_penalty <= 2.0, "-2 to 2"),
        ("frequency_penalty", -2.0 <= given.frequency_penalty <= 2.0, "-2 to 2"),
        ("stop_strings", all(given.stop_strings), "strings that are not empty"),
        ("separator", given.separator != "", "a string that is not empty"),
        ("seed", 0 <= given.seed < 1 << 64, "an unsigned 64-bit integer"),
        ("repetition_penalty", 0.0 < given.repetition_penalty < _INFINITE, "above 0"),
        ("min_tokens", 0 <= given.min_tokens <= given.max_tokens, f"0 to max_tokens, {given.max_tokens}"),
        ("top_logprobs", given.top_logprobs >= 0, "0 or more"),
        ("logit_bias", _are_valid_biases(given.logit_bias), "pairs of a token id and a finite number"),
    ):
        if not valid:
            raise InvalidSampling(f"{name} is {getattr(given, name)!r}; it must be {wanted}")
