"""The weights that a model keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ponder_worker.models import linear as linear_module
from ponder_worker.models.linear import Linear, can_prepack
from ponder_worker.models.transformer import Transformer


def by_c(weight: torch.Tensor, bias: torch.Tensor | None, *, as_float32: bool) -> Linear | None:
    """A product as on a processor with AMX, for most sizes."""
    packed = weight.clone()
    return None if len(weight) % 16 else lambda x: F.linear(x, packed, bias)


def without(weight: torch.Tensor, bias: torch.Tensor | None, *, as_float32: bool) -> Linear | None:
    return None


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("product", "private", "vocabulary", "held"),
    [
        (by_c, False, 304, set()),
        (by_c, False, 300, {"unembedding"}),
        (by_c, True, 300, set()),
        (without, True, 300, set()),
        (without, False, 300, {"unembedding", "query_key_value", "output", "gate_up", "down"}),
    ],
)
def test_weights_are_dropped_where_a_layout_of_any_kind_holds_them(
    llama_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    product: Callable[..., Linear | None],
    private: bool,
    vocabulary: int,
    held: set[str],
    tied: bool,
) -> None:
    if private and not can_prepack(torch.bfloat16):
        pytest.skip("torch has no operators that lay weights out")
    monkeypatch.setattr(linear_module, "product", product)
    monkeypatch.setattr(linear_module, "can_prepack", lambda dtype: private)
    folder = llama_folder(tie_word_embeddings=tied, vocab_size=vocabulary)
    weights = Transformer.load(folder, dtype=torch.bfloat16, device=torch.device("cpu")).weights
    names = ("query_key_value", "output", "gate_up", "down")
    found = {name for name in names for layer in weights.layers if not getattr(layer, name).is_meta}
    assert found == held - {"unembedding"}
    assert weights.unembedding.is_meta == (not tied and "unembedding" not in held)
    assert not weights.embedding.is_meta
