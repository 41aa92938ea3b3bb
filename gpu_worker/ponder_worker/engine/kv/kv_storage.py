"""Where keys and values stand: bytes in slabs, in which each model sees its own pages.

The scales of float8 numbers stand beside the slabs, each model's for as many pages as it could have of all of them: so
kernels count values and scales by the same page number, and no slab's change of owner touches them.
"""

import math
from collections.abc import Sequence as Series

import numpy as np
import numpy.typing as npt
import torch

from ponder_kernels import copy_pages
from ponder_worker.engine.errors import InvalidSetting
from ponder_worker.engine.kv.slab_allocator import SlabAllocator
from ponder_worker.models.kv_pages import Pages
from ponder_worker.models.transformer import Transformer

Integers = npt.NDArray[np.int64]
Pairs = Series[tuple[int, int]]

_NUM_SLABS = 32  # about, or more: fewer trade in large lumps
_SLAB_PAGES = 1024  # at most: who takes a slab waits until its pages are forgotten or moved, microseconds each


class Memory:
    """Of one budget, for the pages of several models. A slab holds a whole number of pages of each."""

    def __init__(self, kv_bytes: int, models: Series[Transformer], page_size: int) -> None:
        """Raises InvalidSetting when it is too little for two slabs a model."""
        pages = [model.new_pages(1, page_size) for model in models]
        page_bytes = [sum(layer.numbers.nbytes for layer in page) for page in pages]
        place_bytes = [page[0].numbers.nbytes for page in pages]
        self.slab_bytes = slab_bytes(kv_bytes, page_bytes, place_bytes)
        scales = [page[0].nbytes - place for page, place in zip(pages, place_bytes, strict=True)]
        beside = sum(self.slab_bytes // place * size for place, size in zip(place_bytes, scales, strict=True))
        num_slabs = kv_bytes // (self.slab_bytes + beside)
        if num_slabs < 2 * len(models):
            raise InvalidSetting(
                f"kv_bytes is {kv_bytes}; it must be at least {2 * len(models) * (self.slab_bytes + beside)}, "
                "two slabs a model"
            )
        self.bytes = torch.zeros(num_slabs * self.slab_bytes, dtype=torch.uint8, device=models[0].device)
        self.budget = SlabAllocator(num_slabs, self._clear)

    def _clear(self, slab: int) -> None:
        """What one model wrote may be no finite number in another's type."""
        self.bytes[slab * self.slab_bytes : (slab + 1) * self.slab_bytes] = 0


def slab_bytes(kv_bytes: int, page_bytes: Series[int], place_bytes: Series[int]) -> int:
    """Of a memory of kv_bytes, for models that have pages of such sizes, in which a layer's part has such."""
    wanted = min(kv_bytes // _NUM_SLABS, _SLAB_PAGES * min(page_bytes))
    grain = math.lcm(*page_bytes)
    if grain > wanted:  # then a slab ends with a part of a page that nobody uses
        grain = math.lcm(*place_bytes)
    return grain * max(-(-max(page_bytes) // grain), wanted // grain)


class Storage:
    """One model's pages in a memory of its own or in one that it shares.

    A layer's part of a page is a *place*. A slab holds the places of the first layer, then those of the second. Page
    numbers are the pool's; what kernels count is the page's place in the first layer. pages: a layer each, in which
    layer l of the page at place p is at p of `pages[l]`: each layer sees the same memory, from its own first place on.
    """

    def __init__(
        self,
        model: Transformer,
        page_size: int,
        *,
        num_pages: int = 0,
        memory: Memory | None = None,
        num_parked: int = 0,
    ) -> None:
        """num_pages: of a memory of its own; num_parked: pages in host memory."""
        page = model.new_pages(1, page_size)
        self._num_layers = len(page)
        place_bytes = page[0].numbers.nbytes
        number_bytes = self._num_layers * place_bytes
        if memory is None:
            raw = torch.zeros(num_pages * number_bytes, dtype=torch.uint8, device=model.device)
            slab_bytes = raw.nbytes
        else:
            raw, slab_bytes = memory.bytes, memory.slab_bytes
        self.slab_pages = slab_bytes // number_bytes
        self.num_pages = raw.nbytes // slab_bytes * self.slab_pages
        self.page_bytes = self._num_layers * page[0].nbytes
        self._slab_places = slab_bytes // place_bytes
        self._places = Pages.over(raw, page[0])
        self.pages = self._places.layers(self._num_layers, self.slab_pages)
        shape = (num_parked * self._num_layers, *page[0].numbers.shape[1:])
        host = torch.device("cpu")
        self._parked = Pages.zeros(shape, model.kv_dtype, host, pinned=model.device.type == "cuda")

    def places(self, pages: Integers) -> Integers:
        """Of pages, by their numbers."""
        if self.slab_pages == self.num_pages:
            return pages
        return pages // self.slab_pages * self._slab_places + pages % self.slab_pages

    def copy(self, pairs: Pairs) -> None:
        """Pages (from, to), in any order: none is copied to twice, or both from and to."""
        source, target = _columns(pairs)
        assert len({*target.tolist()} - {*source.tolist()}) == len(pairs), "the order of these copies matters"
        self._copy(self._places, self._places, self._all_layers(source), self._all_layers(target))

    def park(self, pairs: Pairs) -> None:
        """Pages (from, to a page of host memory)."""
        source, target = _columns(pairs)
        self._copy(self._places, self._parked, self._all_layers(source), self._all_layers_parked(target))

    def fetch(self, pairs: Pairs) -> None:
        """Pages (from a page of host memory, to)."""
        source, target = _columns(pairs)
        self._copy(self._parked, self._places, self._all_layers_parked(source), self._all_layers(target))

    def _all_layers(self, pages: Integers) -> Integers:
        return (self.places(pages)[:, None] + np.arange(self._num_layers) * self.slab_pages).ravel()

    def _all_layers_parked(self, pages: Integers) -> Integers:
        return (pages[:, None] * self._num_layers + np.arange(self._num_layers)).ravel()

    def _copy(self, source: Pages, target: Pages, sources: Integers, targets: Integers) -> None:
        """With their scales."""
        device = self._places.numbers.device
        indices = [torch.from_numpy(places).to(device, non_blocking=True) for places in (sources, targets)]
        for one, other in zip(source.parts, target.parts, strict=True):
            copy_pages.op(one[None], other[None], *indices)


def _columns(pairs: Pairs) -> tuple[Integers, Integers]:
    found = np.array(pairs, dtype=np.int64)
    return found[:, 0], found[:, 1]
