"""Loads models from wherever they come: folders, GGUF files, the Hugging Face Hub.

The Hub is read through its own library, with its cache, token, mirror and offline mode:
https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
"""

from __future__ import annotations

import glob
import hashlib
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from ponder.domain.model_source import HubModel
from ponder_worker.models.checkpoint.folder import DOCUMENTS, weight_names
from ponder_worker.models.checkpoint.gguf.gguf_folder import model_folder
from ponder_worker.models.model_error import MissingFile, ModelError, UnreachableModel

if TYPE_CHECKING:  # torch, which takes seconds to import, is not needed to fetch a model
    from ponder_worker.engine_process.loading.engine_options import EngineOptions
    from ponder_worker.engine_process.loading.engines import Engines, Placement

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of one commit, in the library's cache."""

    folder: Path
    commit: str


@dataclass(frozen=True, slots=True)
class _Source:
    """A model as it was named, the folder it is read from, and what pins it beside the contents of that folder."""

    name: str
    folder: str
    pin: str | None = None


def load(options: EngineOptions, on_placed: Callable[[Placement], None] = lambda placement: None) -> Engines:
    """Loads generator and reward model. Raises a ModelError that says what is wrong with which of them.

    A model of the Hub is what its commit says: the fingerprint changes with it. on_placed is as in `engines.load`.
    """
    from ponder_worker.engine_process.loading import engines

    with ExitStack() as opened:
        sources = [_open(model, opened) for model in (options.model, options.reward_model) if model]
        folders = [source.folder for source in sources]
        placed = replace(options, model=folders[0], reward_model=folders[1] if len(folders) > 1 else None)
        try:
            loaded = engines.load(placed, on_placed)
        except ModelError as error:
            raise type(error)(_in_words_of(sources, str(error))) from error
    pins = [source.pin for source in sources if source.pin]
    if not pins:
        return loaded
    pinned = hashlib.sha256("+".join([loaded.fingerprint, *pins]).encode()).hexdigest()[:16]
    return replace(loaded, fingerprint=pinned)


def fetch(model: HubModel) -> Snapshot:
    """Brings what is read of a model of the Hub into the cache, unless it is there.

    That is its JSON documents, chat template and safetensors files by their names: never code, and no pickles. Raises a
    ModelError with the remedy.
    """
    started = time.monotonic()
    _log.info("fetching_model", model=str(model))
    try:
        folder = _download(model.repository, model.revision, DOCUMENTS)
        commit = folder.name
        names = tuple(weight_names(folder))
        _download(model.repository, commit, names)
        absent = [name for name in ("config.json", "tokenizer.json", *names) if not (folder / name).is_file()]
    except ModelError:
        raise
    except Exception as error:  # whatever the network, the disk or the library has to say
        raise UnreachableModel(_explained(model, error)) from error
    if absent:
        raise MissingFile(
            f"{model} has no {absent[0]}, neither in the cache nor, if it could be asked, on the Hub: a model is "
            "config.json, tokenizer.json and *.safetensors; other weights are not read, and of GGUF files a path"
        )
    _log.info("fetched_model", model=str(model), commit=commit, seconds=round(time.monotonic() - started, 1))
    return Snapshot(folder, commit)


def _open(model: str, opened: ExitStack) -> _Source:
    found = HubModel.parse(model)
    if found is not None:
        snapshot = fetch(found)
        return _Source(str(found), str(snapshot.folder), f"{found.repository}@{snapshot.commit}")
    return _Source(model, str(opened.enter_context(model_folder(model))))


def _in_words_of(sources: list[_Source], text: str) -> str:
    """Names models as their user did, instead of folders of caches and temporary ones."""
    for source in sources:
        text = text.replace(source.folder, source.name)
    return text


def _download(repository: str, revision: str, names: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    exact = [glob.escape(name) for name in names]
    return Path(snapshot_download(repository, revision=revision, allow_patterns=exact))


def _explained(model: HubModel, error: Exception) -> str:
    """Says what went wrong, and what to do about it."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return (
            f"{model} is gated: accept its terms at {constants.ENDPOINT}/{model.repository}, and set HF_TOKEN to a "
            "token that may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{model}: {model.repository} has no branch, tag or commit {model.revision!r}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{model}: there is neither a folder of that name here, nor a repository that may be read at "
            f"{constants.ENDPOINT}: check the name; if it is private, set HF_TOKEN to a token that may read it"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"{constants.ENDPOINT} cannot be reached"
        revision = "" if model.revision == "main" else f" --revision {model.revision}"
        return (
            f"{model} is not in the cache ({constants.HF_HUB_CACHE}), or not all of it, and {why}: connect this "
            f"machine, or run `hf download {model.repository}{revision}` on one that is connected and copy its cache "
            "here (HF_HOME says where it is), or give the path of a folder"
        )
    return f"{model} could not be fetched: {type(error).__name__}: {_without_secrets(str(error))}"


def _without_secrets(text: str) -> str:
    """The first line of a text, without the token and without the parameters of addresses, which may be signatures."""
    from huggingface_hub import get_token

    first = re.sub(r"\?[^\s'\"]*", "?…", text.strip().partition("\n")[0])
    token = get_token()
    return first.replace(token, "…") if token else first
