"""The options of pygmtools' solvers, in one place."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass

CLASSICAL = ("rrwm", "sm", "ipfp")
"""Solvers of the quadratic assignment, without weights."""
EMBEDDING = ("pca_gm", "ipca_gm", "cie")
"""Networks that compare embedded keypoints: they need no affinity between pairs of keypoints."""


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `pygm`.

    Lengths are in keypoint spacings: the mean distance of neighbouring keypoints if those of the
    image were spread evenly over the area that they take up.

    Attributes:
        solver: `rrwm` (reweighted random walks), `sm` (spectral), `ipfp` (integer projected fixed
            point), which need no weights, or the networks `ngm`, `pca_gm`, `ipca_gm`, `cie`.
        weights: of a network: the name of a checkpoint or the path of a file; empty for those that
            were trained on Pascal VOC. The other solvers have none.
        node_features: what keypoints are compared by: `descriptors`, or maps of VGG16 with these
            weights: `vgg16-bn`, or the path of a file. The published weights of `pca_gm`,
            `ipca_gm` and `cie` are for `vgg16-bn`; those that `sfm-match train` makes of them
            hold a CNN of their own, so that `weights` and `node_features` are the same file.
        graph: which keypoints are linked: each with its `neighbours` nearest ones (`knn`), those
            of the Delaunay triangulation (`delaunay`), or all (`full`).
        neighbours: of each keypoint, for `knn`.
        edges: what edges are compared by: `vector`, their direction and length, or `length`.
        align: take off the scale and rotation between the images that most neighbourhoods agree
            on, before edges are compared; otherwise both images are upright, and lengths are
            compared in spacings.
        edge_sigma: two edges have the affinity exp(-d^2 / edge_sigma), of their distance d.
        node_sigma: two keypoints have the affinity exp(-d^2 / node_sigma), of the distance d of
            their features; 0 for the inner product of the features.
        node_weight: what the affinity of keypoints is multiplied by.
        symmetric: solve from the second image to the first one too, and take the mean: most solvers
            treat their two graphs somewhat differently. Twice the time.
        dustbin: the score of a keypoint without a partner, where 1 is the best score of all pairs;
            0 for no dustbin: then as many keypoints as possible are matched.
        temperature: of the Sinkhorn iterations with the dustbin.
        sinkhorn_iterations: how many of them.
        min_score: the probability that a match has to exceed, where there is a dustbin and images
            are not divided.
        max_nodes: two images with more pairs of keypoints than this squared are divided into
            parts; 0 for the solver's own: 100 for `rrwm`, `sm` and `ipfp`, 50 for `ngm`, whose
            memory grows with the fourth power, 200 for `cie`, 1000 for `pca_gm` and `ipca_gm`.
        partition: divide such images; otherwise they are an error.
        part_nodes: keypoints of each part in each image: those nearest to a seed, which is a pair
            of mutual nearest neighbours by their features.
        overlap: how many parts a keypoint is to be in, if there are seeds near it.
        min_votes: the sum of the scores in all parts that a match has to exceed: above 1 it must
            have been found in two.
    """

    solver: Literal["rrwm", "sm", "ipfp", "ngm", "pca_gm", "ipca_gm", "cie"] = "rrwm"
    weights: str = ""
    node_features: Literal["descriptors", "vgg16-bn"] | str = "descriptors"
    graph: Literal["knn", "delaunay", "full"] = "knn"
    neighbours: PositiveInt = 6
    edges: Literal["vector", "length"] = "vector"
    align: bool = True
    edge_sigma: PositiveFloat = 0.3
    node_sigma: NonNegativeFloat = 0.1
    node_weight: NonNegativeFloat = 10.0
    symmetric: bool = True
    dustbin: Annotated[float, Field(ge=0, lt=1)] = 0.3
    temperature: PositiveFloat = 0.1
    sinkhorn_iterations: PositiveInt = 20
    min_score: Annotated[float, Field(ge=0, lt=1)] = 0.4
    max_nodes: NonNegativeInt = 0
    partition: bool = True
    part_nodes: Annotated[int, Field(ge=2)] = 12
    overlap: PositiveInt = 2
    min_votes: NonNegativeFloat = 1.1

    @property
    def largest(self) -> int:
        """The number of keypoints on each side that are matched at once."""
        return self.max_nodes or _LARGEST[self.solver]


_LARGEST = {
    "rrwm": 100,
    "sm": 100,
    "ipfp": 100,
    "ngm": 50,
    "cie": 200,
    "pca_gm": 1000,
    "ipca_gm": 1000,
}
