"""Small data sets in the layouts of the public benchmarks, made from a scene whose truth is known.

Each is written as the benchmark's own description has it, by other code than that which reads it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pycolmap

from sfm_match.types import ArrayF64, Image
from tests.pictures import noise_picture

GALLERY = Path(__file__).parents[2] / "datasets" / "gallery"
NAMES = tuple(f"{i:02}" for i in range(5))
SIZE = 320, 240


def gallery_image(name: str, size: tuple[int, int] = SIZE) -> Image:
    """Return a photograph of the gallery, BGR, without its lens's distortion, in some size."""
    pixels = cv2.imread(str(GALLERY / "images" / f"{name}.jpg"))
    assert pixels is not None
    f, cx, cy, k = pycolmap.Reconstruction(GALLERY / "gt").cameras[1].params
    K = np.array([[f, 0, cx - 0.5], [0, f, cy - 0.5], [0, 0, 1]])
    straight = cv2.undistort(pixels, K, np.array([k, 0, 0, 0]))
    return np.asarray(cv2.resize(straight, size, interpolation=cv2.INTER_AREA), np.uint8)


def gallery_truth(size: tuple[int, int] = SIZE) -> tuple[ArrayF64, dict[str, ArrayF64]]:
    """Return K (3, 3) in corner-origin pixels of that size, and camera from world (3, 4)."""
    model = pycolmap.Reconstruction(GALLERY / "gt")
    camera = pycolmap.Camera(model.cameras[1].todict())
    camera.rescale(*size)
    poses = {
        image.name.removesuffix(".jpg"): image.cam_from_world().matrix()
        for image in model.images.values()
    }
    return np.asarray(camera.calibration_matrix(), np.float64), poses


def write_images(folder: Path, names: Sequence[str], size: tuple[int, int] = SIZE) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
        cv2.imwrite(str(folder / f"{name}.jpg"), gallery_image(name, size), quality)


def homogeneous(pose: ArrayF64) -> ArrayF64:
    return np.vstack([pose, [0, 0, 0, 1]])


def write_megadepth(root: Path, size: tuple[int, int] = SIZE) -> None:
    """A part with four images, one row without image, and three pairs, one in both orders."""
    write_images(root / "Undistorted_SfM/0015/images", NAMES[:4], size)
    K, poses = gallery_truth(size)
    rows: list[str | None] = [NAMES[0], None, *NAMES[1:4]]
    content: dict[str, Any] = {
        "image_paths": np.array(
            [row and f"Undistorted_SfM/0015/images/{row}.jpg" for row in rows], object
        ),
        "depth_paths": np.array([None] * 5, object),
        "intrinsics": np.empty(5, object),
        "poses": np.empty(5, object),
        "pair_infos": [
            (np.array([0, 2]), np.float64(0.2), np.zeros(4)),
            (np.array([3, 4]), np.float64(0.25), np.zeros(4)),
            (np.array([2, 0]), np.float64(0.2), np.zeros(4)),
        ],
    }
    for i, row in enumerate(rows):
        if row is not None:
            content["intrinsics"][i], content["poses"][i] = K, homogeneous(poses[row])
    index = root / "megadepth_test_1500_scene_info"
    index.mkdir(parents=True)
    (index / "0015_0.1_0.3.npz").write_bytes(pickle.dumps(content))
    (index / "megadepth_test_1500.txt").write_text("0015_0.1_0.3\n")


def write_scannet(root: Path) -> None:
    """Frames of 1296 x 968 pixels whose K is of 640 x 480."""
    colour = root / "scene0707_00" / "color"
    colour.mkdir(parents=True)
    for frame, name in zip((15, 45, 585), NAMES, strict=False):
        cv2.imwrite(str(colour / f"{frame}.jpg"), gallery_image(name, (1296, 968)))
    K, poses = gallery_truth((640, 480))
    K = K - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]  # counted from the first pixel's centre
    relative = [
        homogeneous(poses[b]) @ np.linalg.inv(homogeneous(poses[a]))
        for a, b in ((NAMES[0], NAMES[2]), (NAMES[0], NAMES[1]))
    ]
    index = root / "scannet_test_1500"
    index.mkdir()
    np.savez(
        index / "test.npz",
        name=np.array([[707, 0, 15, 585], [707, 0, 15, 45]], np.uint16),
        rel_pose=np.array([T[:3].ravel() for T in relative], np.float32),
    )
    np.savez(index / "intrinsics.npz", scene0707_00=K)


def write_hpatches(root: Path, homographies: Mapping[str, Sequence[ArrayF64]]) -> None:
    """A sequence of each name, its images warped by five homographies of whole pixel centres."""
    for number, (name, of_sequence) in enumerate(homographies.items()):
        folder = root / name
        folder.mkdir(parents=True)
        first = gallery_image(NAMES[number])
        cv2.imwrite(str(folder / "1.ppm"), first)
        for k, H in enumerate(of_sequence, start=2):
            cv2.imwrite(str(folder / f"{k}.ppm"), cv2.warpPerspective(first, H, SIZE))
            lines = (" ".join(f"{value:.12g}" for value in row) for row in H)
            (folder / f"H_1_{k}").write_text("\n".join(lines) + "\n")


def write_imc(root: Path, scene: str = "sacre_coeur") -> None:
    """Five images with calibrations, two subsets of three and one of five, and a list of pairs."""
    place = root / scene / "set_100"
    write_images(place / "images", NAMES)
    K, poses = gallery_truth()
    (place / "calibration").mkdir()
    for name in NAMES:
        with h5py.File(place / "calibration" / f"calibration_{name}.h5", "w") as file:
            file["K"], file["R"], file["T"] = K, poses[name][:, :3], poses[name][:, 3]
    subsets = {"3bag_000": NAMES[:3], "3bag_001": NAMES[2:5], "5bag_000": NAMES}
    (place / "sub_set").mkdir()
    for key, names in subsets.items():
        lines = "".join(f"images/{name}.jpg\n" for name in names)
        (place / "sub_set" / f"{key}.txt").write_text(lines)
    (place / "new-vis-pairs").mkdir()
    keys = [f"{NAMES[1]}-{NAMES[0]}", f"{NAMES[3]}-{NAMES[2]}"]
    np.save(place / "new-vis-pairs" / "keys-th-0.1.npy", np.array(keys))


def write_colmap(root: Path, scene: str, images: str, model: str, prefix: str = "") -> Path:
    """A scene with a text model, whose names of images begin with a prefix; returns the scene."""
    folder = root / scene
    write_images(folder / images, NAMES)
    K, poses = gallery_truth()
    truth = pycolmap.Reconstruction()
    params = [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
    truth.add_camera_with_trivial_rig(
        pycolmap.Camera(model="PINHOLE", width=SIZE[0], height=SIZE[1], params=params, camera_id=1)
    )
    for number, name in enumerate(NAMES, start=1):
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(poses[name][:, :3]), poses[name][:, 3])
        image = pycolmap.Image(name=f"{prefix}{name}.jpg", camera_id=1, image_id=number)
        truth.add_image_with_trivial_frame(image, pose)
    (folder / model).mkdir(parents=True)
    truth.write_text(folder / model)
    return folder


def write_strecha(root: Path, scene: str, images: Path, truth: Path) -> Path:
    """A scene from photographs and a file with K (of pixel centres), R and t of each."""
    folder = root / scene
    (folder / "images").mkdir(parents=True)
    (folder / "gt_dense_cameras").mkdir()
    for name, camera in json.loads(truth.read_text()).items():
        (folder / "images" / name).symlink_to(images / name)
        K, R, t = (np.array(camera[key]) for key in ("K", "R", "t"))
        rows = [*K, np.zeros(3), *R.T, -R.T @ t, np.array(camera["size"])]
        text = "".join(" ".join(f"{v:.17g}" for v in row) + " \n" for row in rows)
        (folder / "gt_dense_cameras" / f"{name}.camera").write_text(text)
    return folder


def write_mlp(path: Path, scans: Mapping[str, ArrayF64]) -> None:
    """A MeshLab project of scans with their poses (4, 4)."""
    meshes = ""
    for name, matrix in scans.items():
        rows = "\n".join(" ".join(f"{v:.17g}" for v in row) for row in matrix)
        meshes += (
            f'  <MLMesh label="{name}" filename="{name}">\n'
            f"   <MLMatrix44>\n{rows}\n</MLMatrix44>\n  </MLMesh>\n"
        )
    path.write_text(
        f"<!DOCTYPE MeshLabDocument>\n<MeshLabProject>\n <MeshGroup>\n{meshes} </MeshGroup>\n"
        " <RasterGroup/>\n</MeshLabProject>\n"
    )


PLANE_SIZE = 640, 480
PLANE_NAMES = tuple(f"DSC_{i:04}.JPG" for i in range(4))
_METRES_PER_TEXEL = 0.0025


def write_eth3d(root: Path, scene: str = "wall") -> Path:
    """A wall, z = 0, of 2 m x 1.5 m, four photographs from 2 m, and a scan of it every 4 mm.

    The scanner's frame is turned and moved; the model's points, 6 x 10 of the wall, are seen by all
    images.
    """
    folder = root / scene
    texture = cv2.cvtColor(noise_picture(600, 800, seed=3), cv2.COLOR_GRAY2BGR)
    K = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
    xs, ys = np.meshgrid(np.linspace(0.3, 1.7, 10), np.linspace(0.3, 1.2, 6))
    points = np.column_stack([xs.ravel(), ys.ravel(), np.zeros(60)])
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        model="PINHOLE", width=640, height=480, params=[600, 600, 320, 240], camera_id=1
    )
    model.add_camera_with_trivial_rig(camera)
    images = folder / "images" / "dslr_images_undistorted"
    images.mkdir(parents=True)
    for number, name in enumerate(PLANE_NAMES):
        turn = np.deg2rad(-9 + 6 * number)
        R = np.array([[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]])
        t = -R @ [0.55 + 0.3 * number, 0.75, -2.0]
        pixel_of_wall = K @ np.column_stack([R[:, :2], t])
        wall_of_texel = np.diag([_METRES_PER_TEXEL, _METRES_PER_TEXEL, 1.0])
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        H = np.linalg.inv(half) @ pixel_of_wall @ wall_of_texel @ half
        cv2.imwrite(str(images / name), cv2.warpPerspective(texture, H, PLANE_SIZE))
        seen = (points @ R.T + t) @ K.T
        image = pycolmap.Image(
            name=f"dslr_images_undistorted/{name}",
            camera_id=1,
            image_id=number + 1,
            keypoints=seen[:, :2] / seen[:, 2:],
        )
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pycolmap.Rotation3d(R), t))
    for row, point in enumerate(points):
        track = pycolmap.Track([pycolmap.TrackElement(i, row) for i in range(1, 5)])
        model.add_point3D(point, track)
    (folder / "dslr_calibration_undistorted").mkdir()
    model.write_text(folder / "dslr_calibration_undistorted")
    _write_scan(folder / "dslr_scan_eval")
    return folder


def _write_scan(folder: Path) -> None:
    folder.mkdir()
    xs, ys = np.meshgrid(np.arange(0, 2, 0.004), np.arange(0, 1.5, 0.004))
    wall = np.column_stack([xs.ravel(), ys.ravel(), np.zeros(xs.size)])
    world_from_scan = np.eye(4)
    world_from_scan[:3] = [[0, 0, 1, 1.0], [1, 0, 0, 0.7], [0, 1, 0, -1.5]]
    in_scan = (wall - world_from_scan[:3, 3]) @ world_from_scan[:3, :3]
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(in_scan)}\n"
        "property float x\nproperty float y\nproperty float z\nproperty uchar intensity\n"
        "end_header\n"
    )
    kinds = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "u1")]
    rows = np.zeros(len(in_scan), kinds)
    rows["x"], rows["y"], rows["z"] = in_scan.T
    (folder / "scan1.ply").write_bytes(header.encode() + rows.tobytes())
    write_mlp(folder / "scan_alignment.mlp", {"scan1.ply": world_from_scan})
