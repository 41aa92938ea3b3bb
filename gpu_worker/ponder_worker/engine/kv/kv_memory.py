"""One memory for the keys and values of several models."""

import math
from collections.abc import Sequence as Series

import torch

from ponder_worker.engine.engine_error import InvalidSetting
from ponder_worker.engine.kv.slab_allocator import SlabAllocator
from ponder_worker.models.transformer import Transformer

_NUM_SLABS = 32  # an approximate minimum: with fewer, models trade in large lumps
_MAX_SLAB_PAGES = 1024  # the taker of a slab waits until its pages are forgotten or moved, microseconds each


class Memory:
    """Bytes in slabs, which the models own in turn. A slab holds a whole number of pages of each model."""

    def __init__(self, kv_bytes: int, models: Series[Transformer], page_size: int) -> None:
        """Raises InvalidSetting when kv_bytes is too small for two slabs per model."""
        pages = [model.new_pages(1, page_size) for model in models]
        layer_bytes = [page[0].numbers.nbytes for page in pages]
        sizes = [model.groups.layers_per_page for model in models]
        page_bytes = [size * of_layer for size, of_layer in zip(sizes, layer_bytes, strict=True)]
        self.slab_bytes = slab_bytes(kv_bytes, page_bytes, layer_bytes)
        scale_bytes = [page[0].nbytes - size for page, size in zip(pages, layer_bytes, strict=True)]
        apart = sum(self.slab_bytes // size * scales for size, scales in zip(layer_bytes, scale_bytes, strict=True))
        num_slabs = kv_bytes // (self.slab_bytes + apart)
        if num_slabs < 2 * len(models):
            raise InvalidSetting(
                f"kv_bytes is {kv_bytes}; it must be at least {2 * len(models) * (self.slab_bytes + apart)}, "
                "two slabs a model"
            )
        self.bytes = torch.zeros(num_slabs * self.slab_bytes, dtype=torch.uint8, device=models[0].device)
        self.slabs = SlabAllocator(num_slabs, self._clear)

    def _clear(self, slab: int) -> None:
        """Zeroes a slab: the bytes that one model wrote may not be finite numbers in another's dtype."""
        self.bytes[slab * self.slab_bytes : (slab + 1) * self.slab_bytes] = 0


def slab_bytes(kv_bytes: int, page_bytes: Series[int], layer_bytes: Series[int]) -> int:
    """Returns the size of a slab. page_bytes: of each model's page; layer_bytes: of one layer's part of it."""
    wanted = min(kv_bytes // _NUM_SLABS, _MAX_SLAB_PAGES * min(page_bytes))
    grain = math.lcm(*page_bytes)
    if grain > wanted:  # then a slab ends with part of a page, which stays unused
        grain = math.lcm(*layer_bytes)
    return grain * max(-(-max(page_bytes) // grain), wanted // grain)
