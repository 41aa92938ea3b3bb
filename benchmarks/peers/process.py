"""A peer engine in its own process, which waits on a pipe while others are timed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pattern import Case

HERE = Path(__file__).parent
NAMES = ("ponder", "ponder int8", "vllm", "transformers generate", "transformers generate_batch")
"""The peers of benchmarks/engine.py. `ponder` is bfloat16 unless a second word names a dtype, such as `auto`."""

ELSEWHERE = ("vllm", "llama")
"""Peers that have an environment of their own."""


class Peer:
    """One engine with one model. Several of them may start at the same time; call `wait` before `play`."""

    def __init__(
        self,
        name: str,
        folder: Path,
        vocabulary: int,
        kv_bytes: int,
        threads: int,
        peer_python: str,
        logs: Path | None = None,
    ) -> None:
        """Starts the engine on the model in `folder`, which may be a GGUF file.

        peer_python: the python of the environment for vLLM or llama.cpp. logs: the folder for its output, by default
        beside the model.
        """
        self.name = name
        self.versions: dict[str, str] = {}
        self._log = (logs or folder) / f"{name}.log"
        library, *which = name.split()
        python = peer_python if library in ELSEWHERE else sys.executable
        answers, writing = os.pipe()
        values = [folder, vocabulary, kv_bytes, threads, *which, writing]
        with self._log.open("w") as log:
            # How threads wait is left to each engine: its own default is what its users get.
            environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
            self._process = subprocess.Popen(
                [python, HERE / f"run_{library}.py", *map(str, values)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                pass_fds=(writing,),
                env=environment,
            )
        os.close(writing)
        self._answers = os.fdopen(answers)

    def wait(self) -> None:
        """Waits until the model is loaded and `versions` is known. Raises RuntimeError if it does not start."""
        first = self._answers.readline()
        if not first:
            last = self._log.read_text().strip().splitlines()[-1:]
            raise RuntimeError(f"{self.name} did not start: {' '.join(last)}")
        self.versions = json.loads(first)

    def play(self, case: Case, seed: int) -> dict[str, Any]:
        """Play a case. Returns wall_s, cpu_s and peak_mb, or error."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"case": case, "seed": seed}) + "\n")
            self._process.stdin.flush()
            found: dict[str, Any] = json.loads(self._answers.readline() or '{"error": "its process ended"}')
        except BrokenPipeError:
            return {"error": "its process ended"}
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
