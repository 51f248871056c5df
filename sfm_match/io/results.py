"""`results.json`: what a run was made from, what it did, and how good it is."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sfm_match.io.files import write_text

_PACKAGES = ("sfm-match", "pycolmap", "torch", "numpy", "h5py", "opencv-python-headless", "pillow")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


class Results:
    """The content of `results.json`; what changes it is written at once, but for the images.

    Attributes:
        content: as in the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = ""
        self.content: dict[str, Any] = {}

    def begin(self, recipe: Mapping[str, Any], fingerprints: Mapping[str, str]) -> None:
        """Start anew, or go on where the file is of the same settings and versions."""
        made_with = {
            "recipe": json.loads(json.dumps(recipe, default=str)),
            "fingerprints": dict(fingerprints),
            "versions": versions(),
        }
        try:
            self._written = self._path.read_text(encoding="utf-8")
            content = json.loads(self._written)
        except (OSError, ValueError):
            content = None
        if isinstance(content, dict) and made_with.items() <= content.items():
            self.content = content
        else:
            self.content = {**made_with, "images": {}, "failures": {}, "stages": {}}
            self.content |= {"remarks": {}, "ignored": []}

    def set_images(self, digests: Mapping[str, str], failures: Mapping[str, str]) -> None:
        """Set the images that can be read, each with the SHA-256 of it and its mask, and the rest.

        What failed or was said before stays so for as long as the image is the same. All this is
        written with what is set next.

        Args:
            digests: the SHA-256 in hexadecimal, by image.
            failures: the images that cannot be read, each with the reason.
        """
        before = self.content["images"]
        self.content["images"] = dict(digests)
        for kind in ("failures", "remarks"):
            self.content[kind] = {
                name: reason
                for name, reason in self.content.get(kind, {}).items()
                if name in digests and digests[name] == before.get(name)
            }
        self.content["failures"].update(failures)

    def set_failures(self, failures: Mapping[str, str]) -> None:
        """Set the images that are left out, each with the reason."""
        self.content["failures"] = dict(failures)
        self._write()

    def add_failures(self, failures: Mapping[str, str]) -> None:
        """Add images that are left out, each with the reason."""
        self.content["failures"].update(failures)
        self._write()

    def set_remarks(self, remarks: Mapping[str, str], ignored: Sequence[str]) -> None:
        """Set what is worth knowing of images that are used, and the files that are no images."""
        self.content["remarks"] = dict(remarks)
        self.content["ignored"] = list(ignored)
        self._write()

    def set_stage(self, name: str, seconds: float, report: Mapping[str, Any]) -> None:
        """Set what a stage did and how long it took."""
        self.content["stages"][name] = {"seconds": round(seconds, 3), **report}
        self._write()

    def set_evaluation(self, evaluation: Mapping[str, Any], truth: Path) -> None:
        """Set the comparison of the model with the truth, and where that is."""
        self.content["evaluation"] = dict(evaluation)
        self.content["truth"] = str(truth.absolute())
        self._write()

    def forget_evaluation(self) -> None:
        """Remove the comparison of a model that has been replaced."""
        if self.content.pop("evaluation", None) is not None:
            self._write()

    def _write(self) -> None:
        text = json.dumps(self.content, indent=1)
        if text != self._written:
            write_text(self._path, text)
            self._written = text
