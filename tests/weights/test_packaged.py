"""The weights that come with the package: files, cards, and what is said where they are missing."""

from __future__ import annotations

import hashlib
import re
import shutil
from importlib import resources
from pathlib import Path

import pytest
from safetensors import safe_open

from sfm_match import weights
from sfm_match.spec import Spec
from sfm_match.training.pictures import LICENCES
from sfm_match.weights import CHECKPOINTS, WeightsError

FOLDER = Path(str(resources.files("sfm_match"))) / "weights_data"
NAMES = [name for name, checkpoint in CHECKPOINTS.items() if checkpoint.packaged]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder in place of the package's own, which no other folder makes up for."""
    monkeypatch.setattr("importlib.resources.files", lambda name: tmp_path / name)
    monkeypatch.delenv(weights.ENV_FOLDERS, raising=False)
    return Path(shutil.copytree(FOLDER, tmp_path / "sfm_match" / "weights_data"))


def test_the_folder_holds_weights_and_cards_and_nothing_else() -> None:
    expected = {f"{name}{suffix}" for name in NAMES for suffix in (".safetensors", ".md")}
    assert {path.name for path in FOLDER.iterdir()} == expected
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 8_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_the_registered_one_in_half_precision(name: str) -> None:
    checkpoint = CHECKPOINTS[name]
    path = weights.find(name, permissive_only=True, download=False)
    assert path.name == f"{name}.safetensors"
    content = (FOLDER / path.name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == weights.digest(name) == checkpoint.sha256
    assert len(content) == checkpoint.size
    assert (checkpoint.licence, checkpoint.commercial) == ("Apache-2.0", True)
    with safe_open(FOLDER / path.name, "np") as tensors:
        kinds = {str(tensors.get_slice(key).get_dtype()) for key in tensors.keys()}  # noqa: SIM118
        assert tensors.metadata()["licence"] == checkpoint.licence
    assert "F16" in kinds
    assert kinds <= {"F16", "I64"}  # batch norm counts its batches


@pytest.mark.parametrize("name", NAMES)
def test_a_card_names_the_licence_and_every_photograph(name: str) -> None:
    card = weights.card(CHECKPOINTS[name])
    assert card.startswith(f"# {name}\n")
    assert "Apache-2.0" in card
    named = dict(re.findall(r"^- (sk(?:image|learn)/\S+): (.+)$", card, re.MULTILINE))
    assert named == LICENCES
    for fact in ("seed", "held out", "minutes", "| option | value |", "Versions: python"):
        assert fact in card


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_said_to_belong_to_the_package(name: str, copy: Path) -> None:
    path = weights.find(name)
    assert path == copy / f"{name}.safetensors"
    path.unlink()
    with pytest.raises(WeightsError) as error:
        weights.find(name)
    assert str(error.value) == (
        f"{path} is missing, which comes with this package; "
        "install sfm-match again: pip install --force-reinstall --no-deps sfm-match"
    )
    (copy / f"{name}.md").unlink()
    with pytest.raises(WeightsError, match=rf"{name}\.md is missing, which comes with this"):
        weights.card(CHECKPOINTS[name])


def test_a_damaged_file_is_refused(copy: Path) -> None:
    path = copy / f"{NAMES[0]}.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(WeightsError) as error:
        weights.find(NAMES[0])
    for part in (
        f"{path} is not the checkpoint {NAMES[0]}",
        CHECKPOINTS[NAMES[0]].sha256,
        f"({len(content) - 1} bytes)",
        "install sfm-match again: pip install --force-reinstall --no-deps sfm-match",
    ):
        assert part in str(error.value)
    assert "downloaded" not in str(error.value)


def test_components_use_them_by_name() -> None:
    assert Spec.parse("extractors", "matchnet").weights == CHECKPOINTS["matchnet-open"].sha256
    named = Spec.parse("matchers", "loftr", {"weights": "coarse-16-fine"})
    assert named.weights == CHECKPOINTS["coarse-16-fine"].sha256
    path = {"weights": str(FOLDER / "coarse-16-fine.safetensors")}
    assert Spec.parse("matchers", "loftr", path).fingerprint == named.fingerprint
