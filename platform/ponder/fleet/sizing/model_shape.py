"""The sizes of a model that decide what it needs of a GPU, as config.json or a user's options give them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ponder.errors import InvalidInput

_OPTIONS = "give --layers, --kv-heads, --head-dim and --parameters instead of a model"
_CACHED = {"full_attention": False, "attention": False, "sliding_attention": True, "chunked_attention": True}
"""By their names in `layer_types`: whether the cache of a layer is limited to a window."""
_STATEFUL = ("linear_attention", "mamba", "mamba2", "conv", "recurrent")
"""Layers with a state of fixed size, and no keys and values."""
_GLOBAL_EVERY = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}
"""Families whose older files leave `layer_types` out: every so many-th layer has no window."""


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Layers that cache alike: `elements` numbers a layer and token, of the last `window` tokens or of all."""

    num_layers: int
    elements: int
    window: int | None = None

    def tokens(self, context: int) -> int:
        """Returns the tokens that a sequence of `context` tokens keeps."""
        return context if self.window is None else min(context, self.window)

    def attended(self, context: int) -> float:
        """Returns the tokens that a token looks back on, on average over a prompt of `context` tokens."""
        last = self.tokens(context)
        return (last * (last + 1) / 2 + (context - last) * last) / context


@dataclass(frozen=True, slots=True)
class Weights:
    """Numbers of parameters. Each token is sent to `chosen_share` of `routed`, a mixture's experts."""

    shared: int
    routed: int = 0
    chosen_share: float = 1.0

    @property
    def total(self) -> int:
        return self.shared + self.routed

    def used(self, num_tokens: int) -> float:
        """Returns how many a step of `num_tokens` tokens reads, if each chooses its experts at random."""
        return self.shared + self.routed * (1 - (1 - self.chosen_share) ** num_tokens)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A model's weights, heads and cache.

    num_kv_heads: the parts that tensor parallelism can divide the cache into; 1 for a latent (MLA). head_width: the sum
    of a head's key and value sizes.
    """

    weights: Weights
    num_heads: int
    num_kv_heads: int
    head_width: int
    caches: tuple[LayerCache, ...]

    @classmethod
    def plain(
        cls, *, layers: int, kv_heads: int, head_dim: int, parameters: int, heads: int | None = None
    ) -> ModelShape:
        """Returns the shape of a dense model without windows."""
        cache = LayerCache(layers, 2 * kv_heads * head_dim)
        return cls(Weights(parameters), heads or kv_heads, kv_heads, 2 * head_dim, (cache,))

    @classmethod
    def parse(cls, fields: Mapping[str, Any], where: str, parameters: int | None = None) -> ModelShape:
        """Reads the fields of a config.json. `parameters` prevails over what they add up to.

        Raises InvalidInput, which names the field and the remedy.
        """
        text = fields.get("text_config")  # the language model's, in a model that sees
        return _Config({**fields, **text} if isinstance(text, dict) else fields, where).shape(parameters)

    @property
    def elements_per_token(self) -> int:
        """The numbers that a token adds to the cache, while no window is full."""
        return sum(cache.num_layers * cache.elements for cache in self.caches)

    def elements(self, context: int) -> int:
        """Returns the numbers in the cache of one sequence."""
        return sum(cache.num_layers * cache.elements * cache.tokens(context) for cache in self.caches)

    def decode_flops(self, context: int) -> float:
        """Returns the operations for one more token after `context` tokens."""
        return self._flops(sum(cache.num_layers * cache.tokens(context) for cache in self.caches))

    def prefill_flops(self, context: int) -> float:
        """Returns the operations for a token of a prompt of `context` tokens, on average."""
        return self._flops(sum(cache.num_layers * cache.attended(context) for cache in self.caches))

    def _flops(self, attended: float) -> float:
        return 2 * self.weights.used(1) + 2 * self.num_heads * self.head_width * attended


@dataclass(frozen=True, slots=True)
class _Config:
    """The fields of a config.json, and its place for error messages."""

    fields: Mapping[str, Any]
    where: str

    def shape(self, parameters: int | None) -> ModelShape:
        heads = self.number("num_attention_heads")
        if self.fields.get("kv_lora_rank"):  # multi-head latent attention (https://arxiv.org/abs/2405.04434)
            rope = self.number("qk_rope_head_dim")
            width = self.number("qk_nope_head_dim") + rope + self.number("v_head_dim")
            elements, kv_heads = self.number("kv_lora_rank") + rope, 1
        else:
            kv_heads = self.number("num_key_value_heads", heads)
            width = 2 * self.head_dim(heads)
            elements = kv_heads * width
        caches = tuple(self.caches(elements))
        if not caches:
            raise InvalidInput(f"{self.where}: no layer of layer_types keeps keys and values: nothing limits a batch")
        return ModelShape(self.weights(heads, kv_heads, width, parameters), heads, kv_heads, width, caches)

    def number(self, name: str, default: int | None = None) -> int:
        value = self.fields.get(name)
        if value is None and default is not None:
            return default
        if value is None:
            raise InvalidInput(f"{self.where}: the field {name!r} is missing: add it, or {_OPTIONS}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidInput(f"{self.where}: the field {name!r} is {value!r}, not a number above 0: {_OPTIONS}")
        return value

    def number_or_0(self, name: str) -> int:
        return self.number(name) if self.fields.get(name) else 0

    def items(self, name: str) -> list[Any]:
        value = self.fields.get(name) or []
        if not isinstance(value, list):
            raise InvalidInput(f"{self.where}: the field {name!r} is {value!r}, not a list: {_OPTIONS}")
        return value

    def head_dim(self, heads: int) -> int:
        return self.number_or_0("head_dim") or max(1, self.number("hidden_size") // heads)

    def caches(self, elements: int) -> Iterator[LayerCache]:
        """Yields the caches of the layers that have one of their own, those alike together."""
        windows: Counter[int | None] = Counter()
        with_own = max(0, self.num_layers() - self.number_or_0("num_kv_shared_layers"))
        for kind in self.layer_types()[:with_own]:
            if kind in _STATEFUL:
                continue
            if kind not in _CACHED:
                known = ", ".join([*_CACHED, *_STATEFUL])
                raise InvalidInput(f"{self.where}: layer_types has {kind!r}; known are {known}: {_OPTIONS}")
            windows[self.window(kind) if _CACHED[kind] else None] += 1
        for window, num_layers in windows.items():
            yield LayerCache(num_layers, elements, window)

    def num_layers(self) -> int:
        return self.number("num_hidden_layers")

    def layer_types(self) -> list[str]:
        """Returns the type of each layer, in transformers' words."""
        num_layers, given = self.num_layers(), self.items("layer_types")
        if given:
            if len(given) != num_layers:
                raise InvalidInput(
                    f"{self.where}: layer_types has {len(given)} entries, but num_hidden_layers is {num_layers}"
                )
            return [str(kind) for kind in given]
        if self.fields.get("sliding_window") is None or self.fields.get("use_sliding_window") is False:
            return ["full_attention"] * num_layers
        every = self.number_or_0("sliding_window_pattern") or _GLOBAL_EVERY.get(str(self.fields.get("model_type")))
        if every:
            is_full = [(layer + 1) % every == 0 for layer in range(num_layers)]
        else:  # all layers, or where the field is there, those from `max_window_layers` on
            first = self.number_or_0("max_window_layers")
            is_full = [layer < first for layer in range(num_layers)]
        return ["full_attention" if full else "sliding_attention" for full in is_full]

    def window(self, kind: str) -> int:
        return self.number("attention_chunk_size" if kind == "chunked_attention" else "sliding_window")

    def weights(self, heads: int, kv_heads: int, width: int, parameters: int | None) -> Weights:
        """Adds up embeddings, attention and feed-forward layers; norms and biases are too few to matter."""
        if parameters is None and set(self.layer_types()) & set(_STATEFUL):
            raise InvalidInput(
                f"{self.where}: the sizes of its layers without attention are not known: give --parameters"
            )
        hidden, num_layers = self.number("hidden_size"), self.num_layers()
        routed, chosen_share, num_sparse = self.experts(hidden)
        if parameters is not None:
            return Weights(parameters - min(routed, parameters), min(routed, parameters), chosen_share)
        tables = 1 if self.fields.get("tie_word_embeddings") else 2
        shared = tables * self.number("vocab_size") * hidden + num_layers * self.attention(
            hidden, heads, kv_heads, width
        )
        if num_sparse < num_layers:
            shared += 3 * hidden * self.number("intermediate_size") * (num_layers - num_sparse)
        shared += 3 * hidden * self.shared_expert_size() * num_sparse
        return Weights(shared, routed, chosen_share)

    def attention(self, hidden: int, heads: int, kv_heads: int, width: int) -> int:
        """Returns the parameters of the projections of one layer."""
        if not self.fields.get("kv_lora_rank"):
            return hidden * width * (heads + kv_heads)
        nope, rope, value = (self.number(name) for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
        latent, query = self.number("kv_lora_rank"), self.number_or_0("q_lora_rank")
        queries = (hidden + heads * (nope + rope)) * query if query else hidden * heads * (nope + rope)
        return queries + hidden * (latent + rope) + latent * heads * (nope + value) + heads * value * hidden

    def experts(self, hidden: int) -> tuple[int, float, int]:
        """Returns the parameters of all experts, the share that a token is sent to, and the layers that have them."""
        names = ("n_routed_experts", "num_local_experts", "num_experts")
        name = next((name for name in names if self.fields.get(name)), None)
        if name is None:
            return 0, 1.0, 0
        num_experts = self.number(name)
        num_chosen = min(self.number("num_experts_per_tok"), num_experts)
        dense, every = self.items("mlp_only_layers"), self.number("decoder_sparse_step", 1)
        layers = range(self.number_or_0("first_k_dense_replace"), self.num_layers())
        num_sparse = sum((layer + 1) % every == 0 and layer not in dense for layer in layers)
        return 3 * hidden * self.expert_size() * num_experts * num_sparse, num_chosen / num_experts, num_sparse

    def expert_size(self) -> int:
        return self.number_or_0("moe_intermediate_size") or self.number("intermediate_size")

    def shared_expert_size(self) -> int:
        """Returns the size of the experts that every token is sent to, together."""
        given = self.number_or_0("shared_expert_intermediate_size")
        return given or self.number_or_0("n_shared_experts") * self.expert_size()
