"""Bundle adjustment of a finished model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pycolmap

from sfm_match.spec import Spec

_MAX_ITERATIONS = 50
_TOLERANCE = 1e-5  # of the cost, as a share
# Ctrl-C is seen between solutions, so each does so many iterations that it takes a few seconds.
_RESIDUALS_PER_SOLUTION = 2_000_000
_MOST_ITERATIONS_PER_SOLUTION = 10


@dataclass(frozen=True)
class Free:
    """What an adjustment may change beside the points.

    Attributes:
        poses: the images' poses.
        focal_length: of the cameras.
        principal_point: of the cameras.
        extra_params: of the cameras: distortion.
    """

    poses: bool = True
    focal_length: bool = True
    principal_point: bool = False
    extra_params: bool = True


def free_after(mapper: Spec, options: Mapping[str, Any]) -> Free:
    """Return what may be changed in the models of a mapper: what it may change itself.

    Where it holds some cameras only, all are held.

    Args:
        mapper: the mapper's spec (see `mapper_spec`).
        options: its options that differ from pycolmap's.
    """
    if mapper.name == "triangulation":  # poses and cameras were given to it
        return Free(poses=False, focal_length=False, extra_params=False)
    if mapper.name == "global":
        nested = options.get("mapper", {}).get("bundle_adjustment", {})
        names = ("refine_focal_length", "refine_principal_point", "refine_extra_params")
    else:
        nested = options.get("incremental_options", options)
        names = ("ba_refine_focal_length", "ba_refine_principal_point", "ba_refine_extra_params")
    if mapper.config["fixed"] or nested.get("constant_cameras"):
        return Free(focal_length=False, extra_params=False)
    defaults = Free()
    fallback = (defaults.focal_length, defaults.principal_point, defaults.extra_params)
    focal, centre, extra = (
        bool(nested.get(name, value)) for name, value in zip(names, fallback, strict=True)
    )
    return Free(True, focal, centre, extra)


def adjust(model: pycolmap.Reconstruction, free: Free, loss_scale: float, threads: int) -> bool:
    """Adjust a model to its keypoints in place; return whether that worked.

    The first two cameras hold place and scale, so that the model stays where it is.

    Args:
        model: the model.
        free: what may be changed.
        loss_scale: of Cauchy's loss, in pixels.
        threads: how many threads, -1 for all; with one the result is the same to the last bit.
    """
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    residuals = max(1, model.compute_num_observations())
    step = max(1, min(_MOST_ITERATIONS_PER_SOLUTION, _RESIDUALS_PER_SOLUTION // residuals))
    options = _options(free, loss_scale, threads, step)
    converged = pycolmap.BundleAdjustmentTerminationType.CONVERGENCE
    for _ in range(0, _MAX_ITERATIONS, step):
        adjuster = pycolmap.create_default_bundle_adjuster(options, config, model)
        summary = adjuster.solve()
        if not summary.is_solution_usable():
            return False
        if summary.termination_type == converged:
            break
    return True


def _options(
    free: Free, loss_scale: float, threads: int, iterations: int
) -> pycolmap.BundleAdjustmentOptions:
    options = pycolmap.BundleAdjustmentOptions(
        print_summary=False,
        refine_focal_length=free.focal_length,
        refine_principal_point=free.principal_point,
        refine_extra_params=free.extra_params,
        refine_rig_from_world=free.poses,
        refine_sensor_from_rig=False,
    )
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = loss_scale
    options.ceres.solver_options.max_num_iterations = iterations
    options.ceres.solver_options.function_tolerance = _TOLERANCE
    options.ceres.solver_options.num_threads = threads
    return options
