"""The model in a browser, served live by viser: points, cameras with their pictures, the truth."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfm_match.geometry.raster import shrink
from sfm_match.io.images import ImageError
from sfm_match.io.reduced import read_reduced
from sfm_match.report.material import Material
from sfm_match.report.model_view import ModelView, view_model
from sfm_match.spec import ConfigError
from sfm_match.types import ArrayF64, Image

if TYPE_CHECKING:
    import viser

PORT = 8080
MAX_POINTS = 2_000_000
_PICTURE_SIDE = 320
_COLOUR, _TRUE_COLOUR, _PICKED_COLOUR = (28, 143, 165), (255, 140, 60), (230, 60, 60)
_POINT_SHARE = 0.0025
_FAR = 2.2


def serve(material: Material, host: str, port: int, say: Callable[[str], object]) -> None:
    """Serve the model of an output folder until Ctrl-C.

    Args:
        material: what is shown.
        host: the address to serve on.
        port: the port to serve on.
        say: called with the line that says where to look.

    Raises:
        ConfigError: there is no model, viser is not installed, or the port is taken.
    """
    if material.model is None:
        raise ConfigError(
            f"{material.out}: has no model to view; sfm-match report {material.out} says why"
        )
    try:
        import viser
    except ImportError:
        raise ConfigError(
            "view needs viser, which is not installed: pip install 'sfm-match[viewer]'"
        ) from None
    _check_port(host, port)
    view = view_model(material.model, material.truth, MAX_POINTS, material.names)
    server = viser.ViserServer(host=host, port=port, verbose=False, label="sfm_match")
    try:
        _fill(server, view, material)
        where = "localhost" if host in ("127.0.0.1", "0.0.0.0") else host
        say(f"http://{where}:{server.get_port()} shows {material.out / 'model'}; Ctrl-C ends it")
        threading.Event().wait()
    except KeyboardInterrupt:  # the way in which it ends
        say("stopped")
    finally:
        server.stop()


def _check_port(host: str, port: int) -> None:
    """Raise where the port is taken: viser would choose another one and not say so."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} of {host} cannot be used ({error.strerror}); choose another --port"
            ) from None


def _fill(server: viser.ViserServer, view: ModelView, material: Material) -> None:
    """Put the model into the scene, with switches for its parts."""
    scene = server.scene
    scene.set_up_direction("+z")
    eye = _FAR * view.radius * view.eye
    server.initial_camera.position = tuple(eye)
    server.initial_camera.look_at = (0.0, 0.0, 0.0)
    points = scene.add_point_cloud(
        "/points",
        points=view.points.astype(np.float32),
        colors=view.colours,
        point_size=_POINT_SHARE * view.radius,
        point_shape="circle",
        precision="float32",
    )
    picture = server.gui.add_image(
        np.zeros((1, 1, 3), np.uint8), label="click a camera", visible=False
    )
    cameras = scene.add_frame("/cameras", show_axes=False)
    for name, frustum in zip(view.names, view.frusta, strict=True):
        _add_camera(server, material.images / name, f"/cameras/{_key(name)}", frustum, picture)
    true_cameras = scene.add_frame("/truth", show_axes=False)
    for name, frustum in zip(view.true_names, view.true_frusta, strict=True):
        _add_frustum(server, f"/truth/{_key(name)}", frustum, _TRUE_COLOUR, None)

    def switch(label: str, node: viser.SceneNodeHandle) -> None:
        box = server.gui.add_checkbox(label, initial_value=True)
        box.on_update(lambda _: setattr(node, "visible", box.value))

    switch("points", points)
    switch("cameras", cameras)
    if view.true_names:
        switch("truth", true_cameras)
    size = server.gui.add_slider("point size", min=0.2, max=5.0, step=0.1, initial_value=1.0)
    size.on_update(lambda _: setattr(points, "point_size", size.value * _POINT_SHARE * view.radius))
    if view.no_truth:
        server.gui.add_markdown(view.no_truth)


def _key(name: str) -> str:
    """Return a name that is one node: slashes would make a tree of them."""
    return name.replace("/", "\u2215")


def _add_camera(
    server: viser.ViserServer,
    path: Path,
    node: str,
    frustum: ArrayF64,
    shown: viser.GuiImageHandle,
) -> None:
    """Add a camera with its picture; a click shows the picture beside the scene."""
    picture = _picture(path)
    handle = _add_frustum(server, node, frustum, _COLOUR, picture)

    @handle.on_click
    def _(event: object) -> None:
        if picture is not None:
            shown.image = picture
            shown.label = path.name
            shown.visible = True


def _add_frustum(
    server: viser.ViserServer,
    node: str,
    frustum: ArrayF64,
    colour: tuple[int, int, int],
    picture: Image | None,
) -> viser.CameraFrustumHandle:
    """Add a pyramid (5, 3): a centre and the corners of its picture, the top left one first."""
    centre, corners = frustum[0], frustum[1:]
    right, down = corners[1] - corners[0], corners[3] - corners[0]
    ahead = corners.mean(axis=0) - centre
    axes = [axis / np.linalg.norm(axis) for axis in (right, down, ahead)]
    from viser.transforms import SO3

    depth, height = float(np.linalg.norm(ahead)), float(np.linalg.norm(down))
    return server.scene.add_camera_frustum(
        node,
        fov=2 * float(np.arctan2(height / 2, depth)),
        aspect=float(np.linalg.norm(right)) / height,
        scale=depth,
        color=colour,
        image=picture,
        wxyz=SO3.from_matrix(np.stack(axes, axis=1)).wxyz,
        position=centre,
    )


def _picture(path: Path) -> Image | None:
    """Return the picture of an image file, in its raster; None where it cannot be decoded."""
    try:
        return shrink(read_reduced(path, _PICTURE_SIDE).pixels, _PICTURE_SIDE)
    except ImageError:
        return None
