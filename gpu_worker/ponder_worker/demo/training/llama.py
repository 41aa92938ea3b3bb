"""A Llama-type language model for training on CPUs: fp32 weights, bf16 arithmetic, Hugging Face's parameter names."""

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The sizes of a model, named as in Hugging Face's ``LlamaConfig``."""

    vocab_size: int = 512
    hidden_size: int = 128
    intermediate_size: int = 352
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    max_position_embeddings: int = 1024
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """Applies a layer with fp32 weights to x `[..., in]` bf16. Returns `[..., out]` bf16."""
    return F.linear(x, layer.weight.to(x.dtype))


class RMSNorm(nn.Module):
    """Root mean square layer normalisation (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalises x `[..., size]`. The statistics are computed in fp32."""
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


class Attention(nn.Module):
    """Causal attention with rotary positions (arXiv:2104.09864) and grouped queries (arXiv:2305.13245)."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim
        width = self.heads * self.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, width, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(width, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor) -> Tensor:
        """Attends from x `[batch, tokens, hidden]`. Returns a tensor of the same shape.

        cos, sin: `[tokens, head_dim]`. bias: `[tokens, tokens]`, 0 or -inf. Two matrix products and a softmax train
        about twice as fast in bf16 on CPUs as ``scaled_dot_product_attention`` and its backward pass.
        """
        batch, tokens, _ = x.shape
        q = linear(x, self.q_proj).view(batch, tokens, self.heads, self.head_dim).transpose(1, 2)
        k = linear(x, self.k_proj).view(batch, tokens, self.kv_heads, self.head_dim).transpose(1, 2)
        v = linear(x, self.v_proj).view(batch, tokens, self.kv_heads, self.head_dim).transpose(1, 2)
        scale = self.head_dim**-0.5
        q, k = rotate(q, cos * scale, sin * scale), rotate(k, cos, sin)
        # The query heads of a group share their keys: [batch * kv_heads, group * tokens, head_dim].
        group = self.heads // self.kv_heads
        q = q.reshape(batch * self.kv_heads, group * tokens, self.head_dim)
        k = k.reshape(batch * self.kv_heads, tokens, self.head_dim)
        v = v.reshape(batch * self.kv_heads, tokens, self.head_dim)
        scores = torch.bmm(q, k.transpose(1, 2)).view(-1, group, tokens, tokens) + bias
        weights = torch.softmax(scores, dim=-1).view(-1, group * tokens, tokens)
        out = torch.bmm(weights, v).view(batch, self.heads, tokens, self.head_dim)
        return linear(out.transpose(1, 2).reshape(batch, tokens, -1), self.o_proj)


class MLP(nn.Module):
    """The feed-forward part, SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer to x `[..., hidden]`."""
        return linear(F.silu(linear(x, self.gate_proj)) * linear(x, self.up_proj), self.down_proj)


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor) -> Tensor:
        """Applies the layer to x `[batch, tokens, hidden]`; cos, sin and bias are as in `Attention`."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, bias)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Llama(nn.Module):
    """The whole model, its output weights tied to its embeddings."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.02 if not deep else 0.02 / (2 * shape.num_hidden_layers) ** 0.5)

    def forward(self, ids: Tensor) -> Tensor:
        """The normalised output `[batch, tokens, hidden]` bf16, of ids `[batch, tokens]` padded on the right."""
        tokens = ids.shape[1]
        cos, sin = rotation(tokens, self.shape.head_dim, self.shape.rope_theta)
        bias = torch.full((tokens, tokens), -torch.inf, dtype=torch.bfloat16).triu(1)
        x = F.embedding(ids, self.embed_tokens.weight).to(torch.bfloat16)
        for layer in self.blocks():
            x = layer(x, cos, sin, bias)
        normed: Tensor = self.norm(x)
        return normed

    def blocks(self) -> list[Layer]:
        """The layers, first to last."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `[..., vocab]` fp32, of hidden states `[..., hidden]` bf16."""
        return F.linear(hidden, self.embed_tokens.weight.to(hidden.dtype)).float()


def deepened(model: Llama, num_layers: int) -> Llama:
    """Returns a model with more layers that computes the same, to be trained on (Net2Net, arXiv:1511.05641).

    A multiple of the model's layers is wanted. Each of its layers is followed by as many new ones, which add nothing
    yet, because their last products are zero.
    """
    every, rest = divmod(num_layers, model.shape.num_hidden_layers)
    assert not rest, f"{num_layers} layers are no multiple of {model.shape.num_hidden_layers}"
    grown = Llama(replace(model.shape, num_hidden_layers=num_layers))
    for name in ("embed_tokens", "norm"):
        getattr(grown, name).load_state_dict(getattr(model, name).state_dict())
    for number, layer in enumerate(grown.blocks()):
        if number % every == 0:
            layer.load_state_dict(model.blocks()[number // every].state_dict())
        else:
            nn.init.zeros_(layer.self_attn.o_proj.weight)
            nn.init.zeros_(layer.mlp.down_proj.weight)
    return grown


def rotation(tokens: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions 0..tokens-1, each `[tokens, head_dim]`, in the halves layout of Hugging Face."""
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(tokens, dtype=torch.float32), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates x `[..., tokens, head_dim]`."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


def save_model(model: Llama, folder: Path, eos_token_id: int, pad_token_id: int) -> None:
    """Writes ``config.json`` and bf16 ``model.safetensors`` as transformers' ``LlamaForCausalLM`` reads them."""
    special = {"bos_token_id": None, "eos_token_id": eos_token_id, "pad_token_id": pad_token_id}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        **asdict(model.shape),
        **special,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {f"model.{name}": value.detach().to(torch.bfloat16) for name, value in model.state_dict().items()}
    # `save_file` would make a file that only its owner may read.
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))


def load_model(folder: Path) -> Llama:
    """Loads a model that `save_model` wrote."""
    config = json.loads((folder / "config.json").read_text())
    model = Llama(LlamaShape(**{field.name: config[field.name] for field in fields(LlamaShape)}))
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): value.float() for name, value in weights.items()})
    return model.eval()
