from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.io.files import FileError
from sfm_match.training.checkpoint import load_state, save_state

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
STATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers(0, 9)), inner, max_size=3),
    ),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None)
@given(STATES)
def test_any_state_comes_back(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    path = tmp_path_factory.mktemp("state") / "x.safetensors"
    save_state(path, {"state": state})
    assert load_state(path) == {"state": state}


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    image = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    tied = torch.arange(6).view(2, 3)
    state: dict[Any, Any] = {
        "a": [image, tied],
        3: {"b": tied.T, "half": torch.ones(2, dtype=torch.bfloat16)},
    }
    save_state(tmp_path / "x", state)
    found: dict[Any, Any] = load_state(tmp_path / "x")
    assert torch.equal(found["a"][0], image)
    assert found["a"][0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found["a"][1], tied)
    assert torch.equal(found[3]["b"], tied.T)
    assert found[3]["half"].dtype == torch.bfloat16


def test_an_optimizer_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def steps(num: int, state: dict[str, Any] | None = None) -> tuple[torch.Tensor, Any]:
        parameter = torch.nn.Parameter(torch.ones(4))
        optimizer = torch.optim.AdamW([parameter], lr=0.1)
        if state is not None:
            parameter.data = state["parameter"]
            optimizer.load_state_dict(state["optimizer"])
        for _ in range(num):
            optimizer.zero_grad()
            torch.autograd.backward((parameter**3).sum())
            optimizer.step()
        return parameter.data, {"parameter": parameter.data, "optimizer": optimizer.state_dict()}

    whole, _ = steps(6)
    _, half = steps(3)
    save_state(tmp_path / "x", half)
    resumed, _ = steps(3, load_state(tmp_path / "x"))
    assert torch.equal(whole, resumed)


@pytest.mark.parametrize("content", [b"", b"no state", b"\x08" + bytes(7) + b"{}      "])
def test_other_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(FileError, match="other: not the state of a training"):
        load_state(path)
