"""Files of weights of pygmtools' networks: published ones, and those of this package's training."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sfm_match.models import vgg


def read_tensors(path: os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a file, safetensors or torch.save's; nothing but these is unpickled.

    Raises:
        ValueError: it holds something else.
    """
    try:
        return load_file(path)
    except SafetensorError:
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a dictionary of tensors")
    return dict(state)


def parted(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights of a solver, and those of the CNN that it was trained with, if any.

    The latter keep their names, which begin with `vgg.PREFIX`.
    """
    solver = {name: values for name, values in state.items() if not name.startswith(vgg.PREFIX)}
    return solver, {name: values for name, values in state.items() if name not in solver}


def joined(solver: Mapping[str, Tensor], cnn: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what `parted` takes apart, of a solver and a CNN by their own names."""
    return {**solver, **{f"{vgg.PREFIX}{name}": values for name, values in cnn.items()}}
