"""llama.cpp as a peer: run_llama.py FILE VOCABULARY KV_BYTES THREADS [unified] DESCRIPTOR

Run it with the Python of an environment that has `llama-cpp-python`. Its high-level class answers one prompt at a time;
this decodes all sequences together, as llama.cpp's own examples do: a prompt is computed once and copied to its
siblings, and every sequence has a sampler chain of its own. Keys and values are llama.cpp's defaults, in float16, in a
cache for each sequence, or in one for all of them (`unified`), which shares a prompt and masks the other sequences.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from itertools import groupby

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import llama_cpp
from llama_cpp import llama_cpp as library
from serve import serve

SEQUENCES, TOKENS = 64, 256
"""The most sequences, and the most tokens of each."""


class Batched:
    """A model and the context that all sequences are decoded in."""

    def __init__(self, path: str, threads: int, *, unified: bool) -> None:
        self._model = library.llama_model_load_from_file(path.encode(), library.llama_model_default_params())
        settings = library.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = SEQUENCES * TOKENS, SEQUENCES
        settings.n_threads = settings.n_threads_batch = threads
        settings.kv_unified = unified
        self._context = library.llama_init_from_model(self._model, settings)
        self._memory = library.llama_get_memory(self._context)
        self._most = settings.n_batch
        self._batch = library.llama_batch_init(self._most, 0, 1)
        self._seeds = iter(range(1, 1 << 31))

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        """Tokens at temperature 1, of all sequences together."""
        library.llama_memory_clear(self._memory, True)
        chains = [self._chain() for _ in prompts]
        found: list[list[int]] = [[] for _ in prompts]
        families = [[place for place, _ in group] for _, group in groupby(enumerate(prompts), key=lambda each: each[1])]
        for together in self._fitting(families, len(prompts[0])):
            self._decode([(t, at, fam[0], t_last) for fam in together for at, t, t_last in _marked(prompts[fam[0]])])
            for number, family in enumerate(together):
                row = (number + 1) * len(prompts[0]) - 1
                for place in family:
                    found[place].append(library.llama_sampler_sample(chains[place], self._context, row))
        for family in families:
            for place in family[1:]:
                library.llama_memory_seq_cp(self._memory, family[0], place, -1, -1)
        for step in range(new_tokens - 1):
            at = len(prompts[0]) + step
            self._decode([(found[place][-1], at, place, True) for place in range(len(prompts))])
            for place, chain in enumerate(chains):
                found[place].append(library.llama_sampler_sample(chain, self._context, place))
        for chain in chains:
            library.llama_sampler_free(chain)
        return found

    def _fitting(self, families: list[list[int]], length: int) -> Iterator[list[list[int]]]:
        """Families whose prompts fit into one batch."""
        num = self._most // length
        return (families[first : first + num] for first in range(0, len(families), num))

    def _chain(self) -> ctypes.c_void_p:
        chain = library.llama_sampler_chain_init(library.llama_sampler_chain_default_params())
        library.llama_sampler_chain_add(chain, library.llama_sampler_init_dist(next(self._seeds)))
        return chain

    def _decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """Compute tokens, each with its position, its sequence, and whether its logits are needed."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for index, (token, position, sequence, has_logits) in enumerate(rows):
            batch.token[index], batch.pos[index] = token, position
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
            batch.logits[index] = has_logits
        if library.llama_decode(self._context, batch) != 0:
            raise RuntimeError("llama_decode failed")


def _marked(prompt: list[int]) -> Iterator[tuple[int, int, bool]]:
    return ((at, token, at == len(prompt) - 1) for at, token in enumerate(prompt))


def main() -> None:
    path, threads = sys.argv[1], int(sys.argv[4])
    library.llama_log_set(_quiet, ctypes.c_void_p(0))
    batched = Batched(path, threads, unified="unified" in sys.argv[5:-1])
    instructions = llama_cpp.llama_print_system_info().decode()
    serve(batched.generate, int(sys.argv[2]), {"llama-cpp-python": llama_cpp.__version__, "system": instructions})


@library.llama_log_callback
def _quiet(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    if level >= 4:
        sys.stderr.write(text.decode(errors="replace"))


if __name__ == "__main__":
    main()
