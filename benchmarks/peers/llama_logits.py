"""llama.cpp's tokens, logits and files: llama_logits.py THREADS, with the Python of an environment with
`llama-cpp-python`.

Reads lines of JSON from standard input. One with `file`, `texts`, `sequences` (of token ids) and `out` gets a line with
the tokens of every text, and the logits at every position of all sequences, one after the other, as an array in `out`.
Keys and values are float32, so that what differs is the products. One with `file`, `type` and `out` gets the file in
another quantisation, or in F32 again, and the line `null`.
"""

import ctypes
import json
import sys

import numpy as np
from llama_cpp import llama_cpp as library


@library.llama_log_callback
def _quiet(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    if level >= 4:
        sys.stderr.write(text.decode(errors="replace"))


def main() -> None:
    library.llama_log_set(_quiet, ctypes.c_void_p(0))
    for line in sys.stdin:
        asked = json.loads(line)
        if "type" in asked:
            convert(asked["file"], asked["out"], asked["type"])
            print("null", flush=True)
            continue
        model = library.llama_model_load_from_file(asked["file"].encode(), library.llama_model_default_params())
        if not model:
            raise SystemExit(f"llama.cpp does not load {asked['file']}")
        vocabulary = library.llama_model_get_vocab(model)
        np.save(asked["out"], logits(model, vocabulary, asked["sequences"], int(sys.argv[1])))
        print(json.dumps([tokens(vocabulary, text) for text in asked["texts"]]), flush=True)
        library.llama_model_free(model)


def convert(file: str, out: str, name: str) -> None:
    """Write all matrices in this type."""
    suffix = "_S" if name in ("Q4_K", "Q5_K") else ""
    kind = f"ALL_{name}" if name == "F32" else f"MOSTLY_{name}{suffix}"
    settings = library.llama_model_quantize_default_params()
    settings.ftype = getattr(library, f"LLAMA_FTYPE_{kind}")
    settings.allow_requantize = settings.pure = True
    if library.llama_model_quantize(file.encode(), out.encode(), settings) != 0:
        raise SystemExit(f"llama.cpp does not write {file} in {name}")


def tokens(vocabulary: ctypes.c_void_p, text: str) -> list[int]:
    """Tokens of a text, special ones found in it and none added."""
    raw = text.encode()
    found = (ctypes.c_int32 * (len(raw) + 8))()
    count = library.llama_tokenize(vocabulary, raw, len(raw), found, len(found), False, True)
    return list(found[:count])


def logits(model: ctypes.c_void_p, vocabulary: ctypes.c_void_p, sequences: list[list[int]], threads: int) -> np.ndarray:
    settings = library.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = max(256, *map(len, sequences))
    settings.n_threads = settings.n_threads_batch = threads
    settings.type_k = settings.type_v = 0  # float32
    settings.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = library.llama_init_from_model(model, settings)
    batch = library.llama_batch_init(settings.n_ctx, 0, 1)
    width = library.llama_vocab_n_tokens(vocabulary)
    found = []
    for sequence in sequences:
        library.llama_memory_clear(library.llama_get_memory(context), True)
        batch.n_tokens = len(sequence)
        for index, token in enumerate(sequence):
            batch.token[index], batch.pos[index] = token, index
            batch.n_seq_id[index], batch.seq_id[index][0], batch.logits[index] = 1, 0, 1
        if library.llama_decode(context, batch) != 0:
            raise SystemExit("llama_decode failed")
        values = np.ctypeslib.as_array(library.llama_get_logits(context), (len(sequence), width))
        found.append(values.copy())
    library.llama_batch_free(batch)
    library.llama_free(context)
    return np.concatenate(found)


if __name__ == "__main__":
    main()
