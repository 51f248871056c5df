"""The state of a training in one file, tensors as safetensors and the rest as JSON beside them.

Unlike a pickle, such a file can be read without running anything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sfm_match.io.files import FileError, write_bytes


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state: dicts, lists, tuples, numbers, texts and tensors, in any depth.

    Raises:
        FileError: it could not be written; an older file is as it was.
    """
    tensors: dict[str, Tensor] = {}
    described = json.dumps(_described(state, tensors))
    write_bytes(path, save(tensors, {"state": described}))


def load_state(path: Path) -> dict[str, Any]:
    """Return the state that was written.

    Raises:
        FileError: the file is not such a state.
    """
    content = path.read_bytes()
    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        described = json.loads(content[8 : 8 + length])["__metadata__"]["state"]
        state: dict[str, Any] = _restored(json.loads(described), tensors)
    except (SafetensorError, KeyError, ValueError) as error:
        raise FileError(f"{path}: not the state of a training: {error}") from error
    return state


def _described(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = f"{len(tensors):05d}"
        # What shares memory with another is written twice.
        tensors[name] = value.detach().cpu().contiguous().clone()
        channels_last = value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)
        return {"tensor": name, "channels_last": channels_last}
    if isinstance(value, dict):
        items = value.items()
        return {"dict": [[key, _described(part, tensors)] for key, part in items]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_described(part, tensors) for part in value]}
    return {"value": value}


def _restored(described: Any, tensors: dict[str, Tensor]) -> Any:
    if "tensor" in described:
        tensor = tensors[described["tensor"]]
        if described["channels_last"]:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor
    if "dict" in described:
        return {key: _restored(part, tensors) for key, part in described["dict"]}
    for kind, make in (("tuple", tuple), ("list", list)):
        if kind in described:
            return make(_restored(part, tensors) for part in described[kind])
    return described["value"]
