"""One model of random weights twice: in transformers and in the engine. It is never on a disk."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from clock import DEVICE
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from ponder_worker.engine import Engine
from ponder_worker.engine.step.graph import captured
from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.checkpoint.layer_weights import LayerWeights
from ponder_worker.models.checkpoint.weights import Weights
from ponder_worker.models.kv_pages import FP8
from ponder_worker.models.transformer import Transformer

Fields = dict[str, Any]
SMALL: Fields = {
    "vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA_1B: Fields = {
    "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True,
}  # fmt: skip
QWEN_7B: Fields = {
    "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False,
}  # fmt: skip


SEQUENCES = 256


def replays(engine: Engine) -> bool:
    """Whether the decode steps of an engine are captured and replayed."""
    graphs = engine._runner._graphs
    return graphs is not None and graphs.is_usable


class NoTokenizer:
    """A tokenizer that does nothing, since the prompts are ids."""

    eos_token_ids: frozenset[int] = frozenset()


@dataclass
class Twin:
    """Both models. float8: the engine's model with keys and values in float8, of the same weights."""

    library: PreTrainedModel
    model: Transformer
    float8: Transformer

    @classmethod
    def of(cls, fields: Fields, dtype: torch.dtype, context: int = 32768) -> "Twin":
        """Both models of this shape, as Qwen2. Apart from biases and windows this is Llama's shape too."""
        config = Qwen2Config(max_position_embeddings=context, **fields)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with DEVICE:
                library = Qwen2ForCausalLM(config).eval()
        finally:
            torch.set_default_dtype(before)
        own = ModelConfig.parse(config.to_dict() | {"architectures": ["Qwen2ForCausalLM"]})
        weights = _weights(library, own.num_layers)
        return cls(library, Transformer(own, weights), Transformer(own, weights, kv_dtype=FP8))

    def engine(self, num_tokens: int, *, graphs: bool = False, float8: bool = False) -> Engine:
        """An engine with this room. graphs: capture decode steps. float8: store keys and values in float8."""
        tokenizer: Any = NoTokenizer()
        pages = -(-num_tokens // 16) + SEQUENCES
        return Engine(
            self.float8 if float8 else self.model,
            tokenizer,
            num_pages=pages,
            max_step_tokens=8192,
            max_sequences=SEQUENCES,
            capture=captured if graphs else None,
        )

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights that a decode step reads. Of an embedding that is not tied it reads only a few rows."""
        weights = self.model.weights
        layers = [getattr(layer, each.name) for layer in weights.layers for each in fields(layer)]
        read = (weights.unembedding, weights.norm, *layers)
        return sum(tensor.nbytes for tensor in read if tensor is not None)


def _weights(library: PreTrainedModel, num_layers: int) -> Weights:
    state = {name: tensor.detach() for name, tensor in library.state_dict().items()}
    embedding = state["model.embed_tokens.weight"]
    tied = bool(library.config.tie_word_embeddings)
    layers = tuple(_layer(state, f"model.layers.{index}.") for index in range(num_layers))
    return Weights(embedding, layers, state["model.norm.weight"], embedding if tied else state["lm_head.weight"])


def _layer(state: dict[str, torch.Tensor], prefix: str) -> LayerWeights:
    def fused(room: str, names: tuple[str, ...], kind: str) -> torch.Tensor:
        return torch.cat([state[f"{prefix}{room}.{name}.{kind}"] for name in names])

    heads = ("q_proj", "k_proj", "v_proj")
    return LayerWeights(
        attention_norm=state[prefix + "input_layernorm.weight"],
        query_key_value=fused("self_attn", heads, "weight"),
        query_key_value_bias=fused("self_attn", heads, "bias"),
        output=state[prefix + "self_attn.o_proj.weight"],
        output_bias=None,
        attention_end_norm=None,
        mlp_norm=state[prefix + "post_attention_layernorm.weight"],
        gate_up=fused("mlp", ("gate_proj", "up_proj"), "weight"),
        gate_up_bias=None,
        down=state[prefix + "mlp.down_proj.weight"],
        down_bias=None,
        mlp_end_norm=None,
        query_norm=None,
        key_norm=None,
    )
