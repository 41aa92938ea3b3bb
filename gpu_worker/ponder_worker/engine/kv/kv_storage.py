"""The tensors that hold keys and values."""

from collections.abc import Sequence as Series

import numpy as np
import numpy.typing as npt
import torch

from ponder_kernels import copy_pages
from ponder_worker.engine.kv.kv_memory import Memory
from ponder_worker.models.kv_pages import Pages
from ponder_worker.models.transformer import Transformer

Integers = npt.NDArray[np.int64]
Pairs = Series[tuple[int, int]]


class KVStorage:
    """The pages of one model, in a memory of its own or in one that it shares.

    A layer's part of a page is a *place*. A slab holds the first places of its pages, then the second ones, and so on.
    The pool counts pages; kernels count places, and know a page by its first. Entry l of `pages` is the same memory as
    layer l sees it, from the first place of its kind on, so that one number serves all layers of a group.

    The scales of float8 numbers are kept outside the slabs, for as many pages as the model could have in all of them.
    Kernels therefore find values and scales by the same number, and a slab's change of owner leaves scales alone.
    """

    def __init__(
        self,
        model: Transformer,
        page_size: int,
        *,
        num_pages: int = 0,
        memory: Memory | None = None,
        num_offload_pages: int = 0,
    ) -> None:
        """Allocates num_pages, or uses a shared memory; in either case num_offload_pages are allocated on the host."""
        page, groups = model.new_pages(1, page_size), model.groups
        self._num_layers = groups.layers_per_page
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
        by_place = self._places.layers(self._num_layers, self.slab_pages)
        self.pages = tuple(by_place[place] for place in groups.place_of_layer)
        shape = (num_offload_pages * self._num_layers, *page[0].numbers.shape[1:])
        host = torch.device("cpu")
        self._host_places = Pages.zeros(shape, model.kv_dtype, host, pinned=model.device.type == "cuda")

    def places_of(self, pages: Integers) -> Integers:
        """Returns the first place of each page."""
        if self.slab_pages == self.num_pages:
            return pages
        return pages // self.slab_pages * self._slab_places + pages % self.slab_pages

    def copy(self, pairs: Pairs) -> None:
        """Copies pages (from, to) in any order: no page may be written twice, or both read and written."""
        source, target = _columns(pairs)
        assert len({*target.tolist()} - {*source.tolist()}) == len(pairs), "the order of these copies matters"
        self._copy(self._places, self._places, self._all_layers(source), self._all_layers(target))

    def offload(self, pairs: Pairs) -> None:
        """Copies pages (from the pool, to the host)."""
        source, target = _columns(pairs)
        self._copy(self._places, self._host_places, self._all_layers(source), self._all_layers_on_host(target))

    def restore(self, pairs: Pairs) -> None:
        """Copies pages (from the host, to the pool)."""
        source, target = _columns(pairs)
        self._copy(self._host_places, self._places, self._all_layers_on_host(source), self._all_layers(target))

    def _all_layers(self, pages: Integers) -> Integers:
        return (self.places_of(pages)[:, None] + np.arange(self._num_layers) * self.slab_pages).ravel()

    def _all_layers_on_host(self, pages: Integers) -> Integers:
        return (pages[:, None] * self._num_layers + np.arange(self._num_layers)).ravel()

    def _copy(self, source: Pages, target: Pages, sources: Integers, targets: Integers) -> None:
        """Copies places, and their scales."""
        device = self._places.numbers.device
        indices = [torch.from_numpy(places).to(device, non_blocking=True) for places in (sources, targets)]
        for one, other in zip(source.parts, target.parts, strict=True):
            copy_pages.op(one[None], other[None], *indices)


def _columns(pairs: Pairs) -> tuple[Integers, Integers]:
    columns = np.array(pairs, dtype=np.int64)
    return columns[:, 0], columns[:, 1]
