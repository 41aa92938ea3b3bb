"""Reading of the files of a model folder, with errors that name them."""

import hashlib
import json
from pathlib import Path, PurePath
from typing import Any

from ponder_worker.models.model_error import InvalidFile, MissingFile

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


def read_json(folder: Path, name: str, *, required: bool = True) -> dict[str, Any]:
    """Read the object in `folder/name`; an empty one if the file is absent and not required."""
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
    """The safetensors files of a model in a fixed order: those of the index, or the only one."""
    index = read_json(folder, _INDEX, required=False)
    files = [folder / name for name in _indexed(folder / _INDEX, index)] if index else [folder / "model.safetensors"]
    for file in files:
        if not file.is_file():
            raise MissingFile(f"{folder}: no {file.name}; only safetensors weights are read")
    return files


def _indexed(path: Path, index: dict[str, Any]) -> list[str]:
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
    return names


def fingerprint(folder: str | Path) -> str:
    """Fingerprint of a model: 16 hex digits that change with config, tokenizer, template, reward kind or weights.

    They are taken from a SHA-256 of the names and contents of those files. All weights are read once, which takes about
    a second per gigabyte.
    """
    folder = Path(folder)
    read_json(folder, "config.json")
    digest = hashlib.sha256()
    for file in [folder / name for name in _IDENTITY if (folder / name).is_file()] + weight_files(folder):
        digest.update(file.name.encode() + b"\0" + file.stat().st_size.to_bytes(8, "little"))
        with file.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()[:16]
