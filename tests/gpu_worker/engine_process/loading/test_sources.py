"""Models of the Hub and GGUF files: what is fetched and cached, what they are loaded as, and what is said of others.

Each fetch is a process of its own, because the library reads its environment once.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from ponder_worker.engine import SamplingParams
from ponder_worker.engine_process.loading import sources
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.engine_process.loading.engines import Engines
from ponder_worker.models.model_error import MissingFile, ModelError, UnsupportedModel

from ...engine.precision import INT8
from ...gguf_files import Kind, write_gguf
from ...hub_server import REPOSITORY, Hub, hub

TOKEN = "hf_veryveryverysecret0123456789"
FETCH = """
import json, sys
from ponder import log
from ponder.domain.model_source import HubModel
from ponder_worker.engine_process.loading.sources import fetch
from ponder_worker.models.model_error import ModelError
log.configure("engine", "debug")
try:
    found = fetch(HubModel.parse(sys.argv[1]))
    said = {"folder": str(found.folder), "commit": found.commit}
except ModelError as error:
    said = {"error": f"{type(error).__name__}: {error}"}
print("\\n" + json.dumps(said))
"""


class Machine:
    """A machine with a cache of its own."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.cache = folder / "home"
        self.environment = {"HF_HOME": str(self.cache), "HF_ENDPOINT": endpoint, "PATH": os.environ["PATH"]}
        self.log = ""

    def fetch(self, model: str = REPOSITORY, **environment: str) -> dict[str, str]:
        done = subprocess.run(
            [sys.executable, "-c", FETCH, model],
            check=False,
            env=self.environment | environment,
            cwd=self.cache.parent,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.log += done.stdout + done.stderr
        assert done.returncode == 0, done.stderr
        said: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return said


@pytest.fixture
def server(tiny_llama: Path, tmp_path: Path) -> Iterator[Hub]:
    """A Hub whose model has two shards, and beside them what must not be fetched."""
    folder = tmp_path / "main"
    shutil.copytree(tiny_llama, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a-1.safetensors": names[::2], "a-2.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / shard)
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("pytorch_model.bin", "modeling_tiny.py", "consolidated.safetensors", "other.json", "README.md"):
        (folder / name).write_bytes(b"x")
    with hub() as found:
        found.branches["main"] = folder
        yield found


@pytest.fixture
def machine(server: Hub, tmp_path: Path) -> Machine:
    return Machine(tmp_path, server.url)


def test_what_is_read_of_a_model_is_fetched_and_nothing_else(server: Hub, machine: Machine) -> None:
    found = machine.fetch()
    assert found["commit"] == server.commit("main")
    assert server.fetched() == {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "model.safetensors.index.json",
        "a-1.safetensors",
        "a-2.safetensors",
    }
    assert Path(found["folder"]).is_relative_to(machine.cache)


def test_what_is_in_the_cache_is_not_fetched_again_and_needs_no_network(server: Hub, machine: Machine) -> None:
    first = machine.fetch()
    server.requests.clear()
    assert machine.fetch() == first
    assert server.fetched() == set()
    server.requests.clear()
    assert machine.fetch(HF_HUB_OFFLINE="1") == first
    assert machine.fetch(f"{REPOSITORY}@{first['commit']}", HF_HUB_OFFLINE="1") == first
    assert server.requests == []
    assert machine.fetch(HF_ENDPOINT="http://127.0.0.1:9") == first  # nobody listens there


def test_a_revision_is_what_its_name_says_and_moves_with_it(server: Hub, machine: Machine, tmp_path: Path) -> None:
    shutil.copytree(server.branches["main"], tmp_path / "next")
    server.branches["v2"] = tmp_path / "next"
    commits = [machine.fetch(f"{REPOSITORY}{name}")["commit"] for name in ("", "@v2")]
    assert commits == [server.commit("main"), server.commit("v2")]
    server.branches = {"main": tmp_path / "next"}
    assert machine.fetch()["commit"] == server.commit("main") not in commits


def test_the_token_reaches_the_hub_and_no_log(server: Hub, machine: Machine) -> None:
    machine.fetch(HF_TOKEN=TOKEN)
    assert {given for _, path, given in server.requests if REPOSITORY in path} == {f"Bearer {TOKEN}"}
    server.refusal = 500, "Broken"
    assert "error" in machine.fetch("acme/other", HF_TOKEN=TOKEN)
    assert TOKEN not in machine.log


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((403, "GatedRepo"), "acme/tiny@main is gated: accept its terms at .*/acme/tiny, and set HF_TOKEN"),
        ((401, "RepoNotFound"), "neither a folder of that name here, nor a repository .*set HF_TOKEN"),
        ((404, "RevisionNotFound"), "acme/tiny has no branch, tag or commit 'main'"),
    ],
)
def test_what_the_hub_refuses_is_said_with_the_remedy(
    server: Hub, machine: Machine, refusal: tuple[int, str], message: str
) -> None:
    import re

    server.refusal = refusal
    assert re.search(message, machine.fetch()["error"])


def test_without_network_and_cache_one_message_names_the_remedy(machine: Machine) -> None:
    for environment, why in (
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached"),
    ):
        error = machine.fetch(f"{REPOSITORY}@v2", **environment)["error"]
        assert error.startswith(f"UnreachableModel: acme/tiny@v2 is not in the cache ({machine.cache}/hub)")
        assert f"{why}: connect this machine, or run `hf download acme/tiny --revision v2`" in error
        assert "\n" not in error


def test_a_cache_that_lacks_a_file_says_which(server: Hub, machine: Machine) -> None:
    folder = Path(machine.fetch()["folder"])
    (folder / "a-2.safetensors").unlink()
    for trees in machine.cache.rglob("trees"):  # as in a cache that an older library made
        shutil.rmtree(trees)
    assert "acme/tiny@main has no a-2.safetensors" in machine.fetch(HF_HUB_OFFLINE="1")["error"]


def test_a_model_of_pickles_is_refused_unfetched(server: Hub, machine: Machine) -> None:
    for name in ("a-1.safetensors", "a-2.safetensors", "model.safetensors.index.json"):
        (server.branches["main"] / name).unlink()
    assert "acme/tiny@main has no model.safetensors" in machine.fetch()["error"]
    index = {"weight_map": {"x": "pytorch_model.bin"}}
    shutil.copytree(server.branches["main"], server.branches["main"].parent / "next")
    server.branches = {"main": server.branches["main"].parent / "next"}
    (server.branches["main"] / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "'pytorch_model.bin' is not a safetensors file" in machine.fetch()["error"]
    assert "pytorch_model.bin" not in server.fetched()


def loaded(model: object, **options: Any) -> Engines:
    return sources.load(EngineOptions(model=str(model), kv_bytes=1 << 20, device="cpu", **options))


def answer(found: Engines) -> list[int]:
    sequence = found.generator.generate([5, 9, 7], prompt_length=3, sampling=SamplingParams(8, temperature=0.0))
    while found.generator.has_work:
        found.generator.step()
    return list(sequence.generated)


def test_the_fingerprint_pins_the_commit_of_a_model_of_the_hub(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = iter("aab")
    monkeypatch.setattr(sources, "fetch", lambda model: sources.Snapshot(tiny_llama, next(commits)))
    first, again, other = (loaded(REPOSITORY).fingerprint for _ in range(3))
    assert first == again
    assert len({first, other, loaded(tiny_llama).fingerprint}) == 3


@pytest.mark.parametrize("dtype", ["float32", pytest.param("int8", marks=INT8)])
def test_a_gguf_file_answers_as_the_folder_that_it_was_made_of(tiny_llama: Path, tmp_path: Path, dtype: str) -> None:
    file = write_gguf(tiny_llama, tmp_path / "m.gguf")
    from_file, from_folder = (loaded(model, dtype=dtype) for model in (file, tiny_llama))
    assert answer(from_file) == answer(from_folder)
    assert from_file.fingerprint != from_folder.fingerprint
    assert from_file.fingerprint == loaded(shutil.copy(file, tmp_path / "other.gguf"), dtype=dtype).fingerprint


def test_errors_name_the_model_as_its_user_did(tiny_llama: Path, tmp_path: Path, monkeypatch: Any) -> None:
    bare = write_gguf(tiny_llama, tmp_path / "bare.gguf", omit=("tokenizer.chat_template",))
    with pytest.raises(MissingFile, match=rf"^{bare}: no chat template .*`tokenizer\.chat_template`"):
        loaded(bare)
    broken = shutil.copytree(tiny_llama, tmp_path / "broken")
    (broken / "config.json").write_text("{}")
    monkeypatch.setattr(sources, "fetch", lambda model: sources.Snapshot(broken, "0a1b"))
    with pytest.raises(ModelError, match=rf"^{REPOSITORY}@main/config\.json: "):
        loaded(REPOSITORY)


def test_a_gguf_file_is_refused_where_it_cannot_be_used(tiny_llama: Path, tmp_path: Path) -> None:
    file = write_gguf(tiny_llama, tmp_path / "m.gguf", Kind.Q8_0)
    with pytest.raises(UnsupportedModel, match=rf"^{file}: only our own engine reads GGUF files: take --engine own"):
        loaded(file, engine="vllm")
    with pytest.raises(MissingFile, match=rf"^{file}: no reward\.json"):
        loaded(tiny_llama, reward_model=str(file))
