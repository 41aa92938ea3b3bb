"""Reading of the files of a model folder, with errors that name them."""

import hashlib
import json
from pathlib import Path, PurePath
from typing import Any

from ponder_worker.models.model_error import InvalidFile, MissingFile

GGUF_WEIGHTS = "model.gguf"
"""The weights of a folder that was made of a GGUF file: a link to it."""
_INDEX = "model.safetensors.index.json"
_IDENTITY = (
    "config.json",
    "generation_config.json",
    "reward.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
DOCUMENTS = (*_IDENTITY, "thinking.json", _INDEX)
"""The files that are read beside the weights."""

Fields = dict[str, Any]
"""A document of the checkpoint: what one of its JSON files says."""


def read_json(folder: Path, name: str, *, required: bool = True) -> Fields:
    """Reads the object in `folder/name`; an empty one if the file is absent and not required."""
    path = folder / name
    if not path.is_file():
        if required:
            raise MissingFile(f"{folder}: no {name}; a model folder in Hugging Face's format has one")
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidFile(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidFile(f"{path}: expected an object, found {type(value).__name__}")
    return value


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights, in the order of `weight_names`, or the GGUF file."""
    if (folder / GGUF_WEIGHTS).is_symlink():
        return [folder / GGUF_WEIGHTS]
    files = [folder / name for name in weight_names(folder)]
    for file in files:
        if not file.is_file():
            raise MissingFile(f"{folder}: no {file.name}; only safetensors weights are read")
    return files


def weight_names(folder: Path) -> list[str]:
    """The names of a model's safetensors files in a fixed order: those of the index, or the only one."""
    index = read_json(folder, _INDEX, required=False)
    return _indexed(folder / _INDEX, index) if index else ["model.safetensors"]


def _indexed(path: Path, index: Fields) -> list[str]:
    """The files of an index. Raises InvalidFile for a name that leads out of the folder.

    A link in the folder may lead out of it, as the links in Hugging Face's cache do.
    """
    files = index.get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise InvalidFile(f"{path}: `weight_map` must be an object whose values are file names")
    names: list[str] = sorted(set(files.values()))
    for name in names:
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise InvalidFile(f"{path}: {name!r} leads out of the model's folder")
        if not name.endswith(".safetensors"):
            raise InvalidFile(f"{path}: {name!r} is not a safetensors file; no other weights are read")
    return names


def fingerprint(folder: str | Path) -> str:
    """Fingerprint of a model: 16 hex digits that change with config, tokenizer, template, reward kind or weights.

    They are taken from a SHA-256 of the names and contents of those files; a GGUF file is all of them in one. All
    weights are read once, which takes about a second per gigabyte.
    """
    folder = Path(folder)
    read_json(folder, "config.json")
    digest = hashlib.sha256()
    weights = weight_files(folder)
    is_gguf = weights == [folder / GGUF_WEIGHTS]
    identity = () if is_gguf else _IDENTITY
    for file in [folder / name for name in identity if (folder / name).is_file()] + weights:
        digest.update(file.name.encode() + b"\0" + file.stat().st_size.to_bytes(8, "little"))
        with file.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()[:16]
