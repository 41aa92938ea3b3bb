"""Logits and tokens of GGUF files: ponder's beside llama.cpp's, for the real file and for small random ones."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from ponder_worker.models import int8
from ponder_worker.models.checkpoint.gguf.gguf_folder import model_folder
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.transformer import Transformer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "gpu_worker"))
from gguf_files import write_gguf  # noqa: E402

PAGE = 16
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
ROPES: dict[str, dict[str, Any]] = {
    "linear": {"type": "linear", "factor": 4.0},
    "yarn": {"type": "yarn", "factor": 8.0, "original_context_length": 64},
}
FAMILIES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}


class LlamaCpp:
    """llama.cpp in a process of its own."""

    def __init__(self, python: str, threads: int, scratch: Path) -> None:
        self._process = subprocess.Popen(
            [python, HERE / "peers" / "llama_logits.py", str(threads)],
            env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._out = scratch / "logits.npy"

    def ask(self, file: Path, texts: list[str], sequences: list[list[int]]) -> tuple[list[list[int]], torch.Tensor]:
        """Tokens of the texts, and logits at all positions of the sequences."""
        found = self._ask(file, self._out, texts=texts, sequences=sequences)
        return found, torch.from_numpy(np.load(self._out))

    def converted(self, file: Path, kind: str) -> Path:
        """The file with all matrices in this type, written by llama.cpp."""
        out = self._out.with_name(f"{kind}.gguf")
        self._ask(file, out, type=kind)
        return out

    def _ask(self, file: Path, out: Path, **asked: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"file": str(file), "out": str(out), **asked}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"llama.cpp's process ended at {file.name}")
        return json.loads(line)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def llama_cpp(python: str, threads: int, scratch: Path) -> Iterator[LlamaCpp]:
    found = LlamaCpp(python, threads, scratch)
    try:
        yield found
    finally:
        found.close()


def real(file: Path, texts: list[str], peer: LlamaCpp, num_sequences: int, length: int) -> dict[str, Any]:
    """How tokens and logits of a real file agree, in float32 and in the dtypes that a worker computes in."""
    with model_folder(file) as folder:
        tokenizer = Tokenizer(folder)
        ours = [tokenizer.encode(text) for text in texts]
        sequences = [tokens[:length] for tokens in ours if len(tokens) >= length][:num_sequences]
        theirs, expected = peer.ask(file, texts, sequences)
        dtypes = (torch.float32, torch.bfloat16, *([torch.int8] if int8.can_multiply() else []))
        found = {str(dtype).removeprefix("torch."): logits(folder, sequences, dtype) for dtype in dtypes}
    exact = peer.ask(peer.converted(file, "F32"), [], sequences)[1]
    return {
        "texts": len(texts),
        "texts_of_other_tokens": sum(a != b for a, b in zip(ours, theirs, strict=True)),
        "tokens": sum(map(len, ours)),
        "positions": len(expected),
        "ponder and llama.cpp": {name: agreement(own, expected) for name, own in found.items()},
        "ponder and llama.cpp on F32": {name: agreement(own, exact) for name, own in found.items()},
        "llama.cpp and llama.cpp on F32": agreement(expected, exact),
    }


def small(peer: LlamaCpp, scratch: Path) -> list[dict[str, Any]]:
    """A row for every family and quantisation, and for Llama's scaled rotations."""
    cases = [(name, kind, "default") for name in FAMILIES for kind in KINDS] + [
        ("llama", "F32", rope) for rope in (*ROPES, "llama3")
    ]
    folders = {name: random_folder(family, scratch / name) for name, family in FAMILIES.items()}
    sequence = np.random.default_rng(0).integers(3, 300, 120).tolist()
    rows = []
    for name, kind, rope in cases:
        metadata = {f"arch__rope__scaling__{key}": value for key, value in ROPES.get(rope, {}).items()}
        factors = {"rope_freqs.weight": np.linspace(1, 8, 16, dtype=np.float32)} if rope == "llama3" else {}
        file = write_gguf(folders[name], scratch / "small.gguf", architecture=name, extra=factors, **metadata)
        if kind != "F32":
            file = peer.converted(file, kind)
        expected, exact = (peer.ask(each, [], [sequence])[1] for each in (file, peer.converted(file, "F32")))
        with model_folder(file) as folder:
            found = logits(folder, [sequence], torch.float32)
        row = {"architecture": name, "type": kind, "rope": rope}
        both = {"llama.cpp": agreement(found, expected), "llama.cpp on F32": agreement(found, exact)}
        rows.append(row | both)
    return rows


def random_folder(family: str, folder: Path) -> Path:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=300,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        initializer_range=0.1,
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.15)
    model.save_pretrained(folder)
    letters = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    Library(models.BPE({letter: token for token, letter in enumerate(letters)}, [("a", "b")])).save(
        str(folder / "tokenizer.json")
    )
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    return folder


def logits(folder: Path, sequences: list[list[int]], dtype: torch.dtype) -> torch.Tensor:
    """Ponder's logits at every position of all sequences, in float32."""
    model = Transformer.load(folder, dtype=dtype, device=torch.device("cpu"))
    num_pages = -(-max(map(len, sequences)) // PAGE)
    found = []
    with torch.inference_mode():
        for sequence in sequences:
            pages, table = model.new_pages(num_pages, PAGE), torch.arange(num_pages)
            positions = torch.arange(len(sequence))
            where = model.layouts(torch.tensor([len(sequence)]), torch.tensor([len(sequence)]), table[None], pages)
            hidden = model.forward(torch.tensor(sequence), positions, positions, where, pages)
            found.append(model.logits(hidden).float())
    return torch.cat(found)


def agreement(own: torch.Tensor, other: torch.Tensor) -> dict[str, float]:
    """How far two tables of logits differ, relative to how much logits vary; and how often the first token is the same.

    Logits are compared as log-probabilities, in which a constant that is added to all of them does not count.
    """
    ours, theirs = own.double().log_softmax(-1), other.double().log_softmax(-1)
    difference = ours - theirs
    return {
        "max_difference": float(f"{difference.abs().max():.2g}"),
        "rms_difference": float(f"{difference.square().mean().sqrt():.2g}"),
        "spread": round(float(theirs.std(-1).mean()), 2),
        "divergence": float(f"{(theirs.exp() * -difference).sum(-1).mean():.2g}"),
        "same_first_token": round(float((ours.argmax(-1) == theirs.argmax(-1)).double().mean()), 4),
    }
