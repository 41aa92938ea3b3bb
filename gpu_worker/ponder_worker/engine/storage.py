"""Where keys and values stand: bytes in slabs, in which each model sees its own pages."""

import math
from collections.abc import Sequence as Series

import numpy as np
import numpy.typing as npt
import torch

from ponder_kernels import copy_pages
from ponder_worker.engine.budget import Budget
from ponder_worker.engine.errors import InvalidSetting
from ponder_worker.models.transformer import Transformer

Integers = npt.NDArray[np.int64]
Pairs = Series[tuple[int, int]]

_NUM_SLABS = 32  # about: fewer trade in large lumps, more waste the ends


class Memory:
    """Of one budget, for the pages of several models. A slab holds a whole number of pages of each."""

    def __init__(self, kv_bytes: int, models: Series[Transformer], page_size: int) -> None:
        """Raises InvalidSetting when it is too little for two slabs a model."""
        pages = [model.new_pages(1, page_size) for model in models]
        page_bytes = [page.nbytes for page in pages]
        grain = math.lcm(*page_bytes)
        if grain > kv_bytes // _NUM_SLABS:  # then a slab ends with a part of a page that nobody uses
            grain = math.lcm(*(page[0].nbytes for page in pages))
        least = -(-max(page_bytes) // grain)
        self.slab_bytes = grain * max(least, kv_bytes // _NUM_SLABS // grain)
        num_slabs = kv_bytes // self.slab_bytes
        if num_slabs < 2 * len(models):
            raise InvalidSetting(
                f"kv_bytes is {kv_bytes}; it must be at least {2 * len(models) * self.slab_bytes}, two slabs a model"
            )
        self.bytes = torch.zeros(num_slabs * self.slab_bytes, dtype=torch.uint8, device=models[0].device)
        self.budget = Budget(num_slabs, self._clear)

    def _clear(self, slab: int) -> None:
        """What one model wrote may be no finite number in another's type."""
        self.bytes[slab * self.slab_bytes : (slab + 1) * self.slab_bytes] = 0


class Storage:
    """One model's pages in a memory of its own or in one that it shares.

    A layer's part of a page is a *place*. A slab holds the places of the first layer, then those of the second. Page
    numbers are the pool's; what kernels count is the page's place in the first layer. pages: `[num_layers, num_places,
    2, num_kv_heads, page_size, head_dim]`, in which layer l of the page at place p is `pages[l, p]`: each layer sees
    the same memory, from its own first place on.
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
        place_bytes = page[0].nbytes
        if memory is None:
            raw = torch.zeros(num_pages * page.nbytes, dtype=torch.uint8, device=model.device)
            slab_bytes = raw.nbytes
        else:
            raw, slab_bytes = memory.bytes, memory.slab_bytes
        self.slab_pages = slab_bytes // page.nbytes
        self.num_pages = raw.nbytes // slab_bytes * self.slab_pages
        self.page_bytes = page.nbytes
        self._slab_places = slab_bytes // place_bytes
        self._places = raw.view(page.dtype).view(-1, *page.shape[2:])
        stride = self._places.stride()
        layer = self.slab_pages * stride[0]
        num_places = len(self._places) - (self._num_layers - 1) * self.slab_pages
        self.pages = self._places.as_strided((self._num_layers, num_places, *page.shape[2:]), (layer, *stride))
        self._parked = torch.zeros(
            (num_parked * self._num_layers, *page.shape[2:]), dtype=page.dtype, pin_memory=model.device.type == "cuda"
        )

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

    def _copy(self, source: torch.Tensor, target: torch.Tensor, sources: Integers, targets: Integers) -> None:
        device = self._places.device
        indices = [torch.from_numpy(places).to(device, non_blocking=True) for places in (sources, targets)]
        copy_pages.op(source[None], target[None], *indices)


def _columns(pairs: Pairs) -> tuple[Integers, Integers]:
    found = np.array(pairs, dtype=np.int64)
    return found[:, 0], found[:, 1]
