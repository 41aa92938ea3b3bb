"""The engines that fulfil the contract. Each runs the same tests.

vLLM's run in its own environment, `.venv-vllm`, with `make test-slow`: it takes a minute to start.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vllm_build import NEEDS_VLLM

from ponder_worker.engine import Engine
from ponder_worker.engine.inference_engine import InferenceEngine
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.readout import Readout

HEAD_DIM = 32
"""The smallest that vLLM's attention takes on a CPU."""
_KV_BYTES = 1 << 23

Load = Callable[..., InferenceEngine]
ENGINES = ["own", pytest.param("vllm", marks=[pytest.mark.vllm, pytest.mark.timeout(480), NEEDS_VLLM])]


def load_own(folder: Path, readout: Readout | None = None) -> InferenceEngine:
    return Engine.load(folder, num_pages=1024, max_step_tokens=128, max_sequences=16)


def load_vllm(folder: Path, readout: Readout | None = None, **args: Any) -> InferenceEngine:
    from ponder_worker.vllm_engine import vllm_library
    from ponder_worker.vllm_engine.loading import VllmSettings, load

    vllm_library.prepare("cpu")
    settings = VllmSettings(
        str(folder),
        readout,
        dtype="float32",
        max_sequences=16,
        max_step_tokens=128,
        kv_bytes=_KV_BYTES,
        args={"enforce_eager": True} | args,
    )
    return load(settings, Tokenizer(folder))


@pytest.fixture(scope="session", params=ENGINES)
def load(request: pytest.FixtureRequest) -> Load:
    """Loads a folder into the engine under test; the same folder only once, since vLLM takes seconds."""
    loader: Load = {"own": load_own, "vllm": load_vllm}[request.param]
    loaded: dict[tuple[Path, Readout | None], InferenceEngine] = {}

    def once(folder: Path, readout: Readout | None = None) -> InferenceEngine:
        key = (folder, readout)
        if key not in loaded:
            loaded[key] = loader(folder, readout)
        return loaded[key]

    return once


@pytest.fixture
def llm(load: Load, llama_folder: Callable[..., Path]) -> Iterator[InferenceEngine]:
    engine = load(llama_folder(head_dim=HEAD_DIM))
    yield engine
    assert not engine.has_work, "the test left a sequence behind"
    engine.check()
