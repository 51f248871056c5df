"""Training networks on pictures of one's own."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from sfm_match.cli.options import AsJson
from sfm_match.cli.output import bar, show
from sfm_match.spec import ConfigError
from sfm_match.stages.progress import no_progress
from sfm_match.stages.recipe import parse_settings

if TYPE_CHECKING:
    from sfm_match.training.optimization import Step

app = typer.Typer()


@app.command("train")
def train(
    name: Annotated[str, typer.Argument(help="What to train.", show_default=False)],
    data: Annotated[
        str,
        typer.Argument(help="Folder of images, or `free` for free photographs in packages."),
    ],
    out: Annotated[Path, typer.Argument(help="Output folder.", show_default=False)],
    option: Annotated[
        list[str] | None,
        typer.Option("-o", "--option", metavar="KEY=VALUE", help="Set an option of the training."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all random numbers.")] = 0,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Processor cores to use; all by default.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write OUT/tensorboard too; needs tensorboard.")
    ] = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Train a network; stopped or killed, the same command goes on.

    OUT gets the weights, a card that says what they were made from and how good they are, the
    losses and their curve. Use them with `-o features.weights=OUT/weights.safetensors`, or
    `-o matcher.weights=` for a matcher.
    """
    import torch

    from sfm_match.report.curves import draw_curves
    from sfm_match.training.loop import LOSSES
    from sfm_match.training.task import CARD, WEIGHTS
    from sfm_match.training.task import train as run

    if threads is not None:
        torch.set_num_threads(threads)
    options = parse_settings(option or ())
    if any(isinstance(value, dict) for value in options.values()):
        raise ConfigError("-o: options of a training are KEY=VALUE, without a table")
    with ExitStack() as stack:
        stop = stack.enter_context(_first_ctrl_c())

        def progress(what: str, total: int) -> Callable[[int], object]:
            shown = no_progress if quiet else bar
            return stack.enter_context(shown(what, total))

        watch = _tensorboard(out / "tensorboard") if tensorboard else lambda _: None
        found = run(name, data, out, options, seed, progress, watch, stop)
    draw_curves(out / LOSSES, out / "losses.png")
    figures = ", ".join(f"{key} {value:.3f}" for key, value in found["after"].items())
    show(as_json, f"{out / WEIGHTS}: {figures}; see {out / CARD}", found)


@contextmanager
def _first_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Give what says whether Ctrl-C was pressed, so that the step is saved; a second one ends."""
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _tensorboard(folder: Path) -> Callable[[Step], object]:
    """Return what writes a step for TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("--tensorboard needs tensorboard: pip install tensorboard") from None
    writer = SummaryWriter(str(folder))

    def write(step: Step) -> None:
        for name, value in {"loss": step.loss, **step.terms, "gradient": step.gradient}.items():
            writer.add_scalar(name, value, step.number)

    return write
