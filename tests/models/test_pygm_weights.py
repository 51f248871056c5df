"""Files of weights of pygmtools' networks, and CNNs of other widths than VGG16's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sfm_match.models import vgg
from sfm_match.models.pygm_solvers import network_from_state
from sfm_match.models.pygm_weights import joined, parted, read_tensors
from tests.models.test_pygm_solvers import small_network


def test_a_solver_and_its_cnn_are_one_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    solver, cnn = small_network("cie"), vgg.Vgg16(16)
    both = joined(solver.state_dict(), cnn.state_dict())
    halves = {n: v.half() if v.is_floating_point() else v for n, v in both.items()}
    save_file(halves, tmp_path / "a.safetensors")
    torch.save(halves, tmp_path / "b.pt")
    for name in ("a.safetensors", "b.pt"):
        own, its_cnn = parted(read_tensors(tmp_path / name))
        read = vgg.network_from_state(its_cnn)
        assert read.width == 16
        assert not read.training
        pairs = ((network_from_state("cie", own), solver), (read, cnn))
        for found, expected in pairs:
            for key, values in expected.state_dict().items():
                assert found.state_dict()[key].dtype == values.dtype
                torch.testing.assert_close(found.state_dict()[key], values, atol=1e-3, rtol=1e-3)
    # The whole file serves as a CNN's too.
    assert vgg.network_from_state(both).width == 16
    own, none = parted(solver.state_dict())
    assert own.keys() == solver.state_dict().keys()
    assert none == {}


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "x")
    with pytest.raises(ValueError, match="x holds a list, not a dictionary of tensors"):
        read_tensors(tmp_path / "x")


def test_a_narrow_cnn_has_the_same_layers() -> None:
    narrow = {name: v.shape for name, v in vgg.Vgg16(64).state_dict().items()}
    full = {name: v.shape for name, v in vgg.Vgg16().state_dict().items()}
    assert narrow.keys() == full.keys()
    assert narrow["features.0.weight"] == (8, 3, 3, 3)
    assert narrow["features.37.weight"] == (64, 64, 3, 3)
    with pytest.raises(ValueError, match="the width must be a multiple of 8, got 20"):
        vgg.Vgg16(20)


@torch.inference_mode()
def test_features_of_a_batch_are_those_of_its_images() -> None:
    torch.manual_seed(0)
    network = vgg.Vgg16(16).eval()
    images = torch.randint(0, 256, (2, 200, 300, 3), dtype=torch.uint8)
    places = 256 * torch.rand(2, 9, 2)
    squares = torch.cat([vgg.square(image) for image in images])
    found = vgg.features_of(network, squares, places)
    assert found.shape == (2, 9, 32)
    for row in range(2):
        single = vgg.features_at(network, images[row], places[row])
        torch.testing.assert_close(found[row], single)
