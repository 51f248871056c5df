"""Graph matching: of the candidate matches those that agree with their neighbours.

A quadratic assignment over thousands of keypoints, of which most have no partner: the seeded
spectral stage and the affine mean field of `sfm_match.models.graph_matching_field`. No weights, any
features; scales and orientations are used where there are some. The images may be turned and
scaled against each other. Its candidates are nearest neighbours, or what another matcher found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfm_match.logs import log
from sfm_match.models.descriptors import Descriptors, encode_descriptors
from sfm_match.models.graph_matching import candidates_of_matches, nearest_candidates, solve
from sfm_match.models.graph_matching_config import Config
from sfm_match.models.graph_matching_geometry import Candidates, Keypoints, place_keypoints
from sfm_match.spec import ConfigError, Spec, gives_correspondences, load_plugin
from sfm_match.types import Features, Matcher, Matches, View

__all__ = ["CONCURRENT", "LICENCE", "NEEDS", "VERSION", "Config", "build", "resolve"]

VERSION = 2
NEEDS = frozenset({"features"})
CONCURRENT = True
LICENCE = "Apache-2.0"

_KNN = "knn"
_FINGERPRINT = re.compile("-[0-9a-f]{16}$")


@dataclass(frozen=True)
class Encoded:
    """What depends on one image.

    Attributes:
        keypoints: in units of their spacing.
        rows: int64 (N,), the rows of the features that they are.
        descriptors: (N, D) where candidates are nearest neighbours.
        inner: what the matcher that finds the candidates encoded.
    """

    keypoints: Keypoints
    rows: Tensor
    descriptors: Descriptors | None
    inner: Any


@dataclass(frozen=True)
class _Graph:
    config: Config
    device: str
    inner: Matcher[Any, Matches] | None

    def encode(self, view: View) -> Encoded:
        assert view.features is not None
        kept = _with_finite_descriptors(view.features)
        features = view.features.take(kept)
        keypoints = place_keypoints(features, self.device)
        rows = torch.from_numpy(kept).to(self.device)
        if self.inner is not None:
            inner = self.inner.encode(view._replace(features=features))
            return Encoded(keypoints, rows, None, inner)
        descriptors = torch.from_numpy(features.descriptors).to(self.device)
        return Encoded(keypoints, rows, encode_descriptors(descriptors), None)

    @torch.inference_mode()
    def match(self, pairs: Sequence[tuple[Encoded, Encoded]]) -> list[Matches]:
        if self.inner is None:
            return [self._match_pair(a, b, None) for a, b in pairs]
        found = self.inner.match([(a.inner, b.inner) for a, b in pairs])
        return [self._match_pair(a, b, c) for (a, b), c in zip(pairs, found, strict=True)]

    def _match_pair(self, a: Encoded, b: Encoded, matches: Matches | None) -> Matches:
        if len(a.keypoints) == 0 or len(b.keypoints) == 0:
            return _EMPTY
        found = self._candidates(a, b, matches)
        which, scores = solve(a.keypoints, b.keypoints, found, self.config)
        indices = torch.stack([a.rows[found.rows0[which]], b.rows[found.rows1[which]]], dim=1)
        return Matches(indices.cpu().numpy().astype(np.int32), scores.cpu().numpy())

    def _candidates(self, a: Encoded, b: Encoded, matches: Matches | None) -> Candidates:
        if matches is None:
            assert a.descriptors is not None
            assert b.descriptors is not None
            return nearest_candidates(a.descriptors, b.descriptors, self.config.num_candidates)
        rows = torch.from_numpy(matches.indices.astype(np.int64)).to(self.device)
        scores = torch.from_numpy(matches.scores).to(self.device)
        return candidates_of_matches(rows, scores, self.config.best_ratio)


_EMPTY = Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))


def _with_finite_descriptors(features: Features) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the rows whose descriptors are finite; the log says how many are not."""
    finite = np.flatnonzero(np.isfinite(features.descriptors).all(axis=1)).astype(np.int64)
    if len(finite) < len(features):
        bad = len(features) - len(finite)
        log.warning("graph: %d of %d descriptors are not finite: ignored", bad, len(features))
    return finite


def _candidates_spec(config: Config, inputs: tuple[Spec, ...]) -> Spec | None:
    """Return the spec of the matcher whose matches are the candidates, or None for `knn`.

    Raises:
        ConfigError: there is no such matcher, or it does not match features by themselves.
    """
    name = _FINGERPRINT.sub("", config.candidates)
    if name == _KNN:
        return None
    spec = Spec.parse("matchers", name, {}, inputs, where="candidates")
    needs = load_plugin("matchers", name).NEEDS
    if name == "graph" or needs != NEEDS or gives_correspondences(spec):
        raise ConfigError(
            f"candidates: must be {_KNN!r} or a matcher that matches features by themselves, "
            f"got {name!r}"
        )
    return spec


def resolve(config: Config, inputs: tuple[Spec, ...]) -> Config:
    """Append the fingerprint of the matcher of candidates to its name: it decides the output too.

    Raises:
        ConfigError: there is no such matcher, or it does not match features by themselves.
    """
    spec = _candidates_spec(config, inputs)
    return config if spec is None else replace(config, candidates=spec.folder_name)


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Matcher[Encoded, Matches]:
    """Return the matcher."""
    spec = _candidates_spec(config, inputs)
    return _Graph(config, device, None if spec is None else spec.build(device))
