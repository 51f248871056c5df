"""A training from its settings to its result: what `sfm-match train` does."""

from __future__ import annotations

import json
import pkgutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import save
from torch import Tensor

from sfm_match.io.files import write_bytes, write_text
from sfm_match.io.results import versions
from sfm_match.spec import ConfigError, config_dict, nearest, parse_config
from sfm_match.training import tasks
from sfm_match.training.loop import CHECKPOINT, Trainer, run_training
from sfm_match.training.optimization import Step

SETTINGS = "training.json"
WEIGHTS = "weights.safetensors"
CARD = "card.md"

Progress = Callable[[str, int], Callable[[int], object]]
"""Called with what begins and its number of steps; gives what is called with steps done."""


@dataclass(frozen=True)
class Task:
    """Everything that a training needs.

    Attributes:
        trainer: the network in training.
        make_batch: returns the batch of a step.
        steps: how many there are.
        weights: returns the result: tensors by name, as the network's loader takes them.
        evaluate: returns figures on data that is held out, by name.
        data: what it is trained on, with the licence, a line each.
        metadata: of the file of weights, for the network's loader.
    """

    trainer: Trainer[Any]
    make_batch: Callable[[int], Any]
    steps: int
    weights: Callable[[], Mapping[str, Tensor]]
    evaluate: Callable[[], Mapping[str, float]]
    data: Sequence[str]
    metadata: Mapping[str, str] = field(default_factory=dict)


def task_names() -> list[str]:
    """Return what can be trained."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(tasks.__path__))


def load_task(name: str) -> ModuleType:
    """Return the module of a task.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in task_names():
        raise ConfigError(f"nothing named {name!r} can be trained; {nearest(name, task_names())}")
    return import_module(f"{tasks.__name__}.{name.replace('-', '_')}")


def train(
    name: str,
    data: str,
    out: Path,
    options: Mapping[str, Any],
    seed: int,
    progress: Progress,
    watch: Callable[[Step], object] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train, or go on where the same training was stopped; leave weights and a card in a folder.

    Args:
        name: of the task.
        data: a folder of images, `free` for the photographs that come with packages, or
            whatever else the task takes.
        out: the folder of the results; it is made if it is not there.
        options: of the task, by name.
        seed: of all random numbers.
        progress: shows what is done.
        watch: is called after every step.
        stop: is asked after every step whether to save and end.

    Returns:
        what the card says.

    Raises:
        ConfigError: the options are wrong, or the folder holds a training of others.
        KeyboardInterrupt: it was stopped.
    """
    module = load_task(name)
    config = parse_config(module.Config, options, name)
    settings = {"task": name, "data": data, "seed": seed, "options": config_dict(config)}
    out.mkdir(parents=True, exist_ok=True)
    begun = _begin(out, settings)
    if begun and (out / WEIGHTS).exists() and "after" in _kept(out):
        return _kept(out)
    task: Task = module.prepare(config, data, seed, progress)
    before = dict(task.evaluate()) if not begun else _kept(out).get("before", {})
    if not begun:
        _keep(out, settings | {"before": before, "seconds": 0.0})
    start, advance = time.monotonic(), progress("train", task.steps)
    done = 0

    def after(step: Step) -> None:
        nonlocal done
        advance(step.number + 1 - done)
        done = step.number + 1
        watch(step)

    spent = float(_kept(out).get("seconds", 0.0))
    try:
        run_training(task.trainer, task.make_batch, task.steps, out, progress=after, stop=stop)
    finally:
        _keep(out, _kept(out) | {"seconds": spent + time.monotonic() - start})
    halves = {key: _half(value) for key, value in task.weights().items()}
    metadata = {"task": name, "licence": "Apache-2.0", **task.metadata}
    write_bytes(out / WEIGHTS, save(halves, metadata))
    found = _kept(out) | {
        "after": dict(task.evaluate()),
        "versions": versions(),
        "parameters": sum(value.numel() for value in halves.values()),
        "data_used": list(task.data),
    }
    write_text(out / CARD, card(found))
    _keep(out, found)
    return found


def _half(value: Tensor) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if value.is_floating_point() else value


def _begin(out: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether a training of these settings is there to go on with."""
    if not (out / CHECKPOINT).exists():
        return False
    kept = {key: value for key, value in _kept(out).items() if key in settings}
    if kept != json.loads(json.dumps(settings)):
        raise ConfigError(
            f"{out}: holds a training with another {', '.join(_differing(kept, settings))}; "
            "name another folder, or delete this one"
        )
    return True


def _differing(kept: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Return the names of what differs, of options too."""
    old, new = ({**s, **s.get("options", {})} for s in (kept, settings))
    return [key for key in new if key != "options" and old.get(key) != new[key]]


def _kept(out: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
    return kept


def _keep(out: Path, content: Mapping[str, Any]) -> None:
    write_text(out / SETTINGS, json.dumps(content, indent=1))


def card(found: Mapping[str, Any]) -> str:
    """Return the model card of a training, in Markdown."""
    lines = [
        f"# {found['task']}",
        "",
        f"{found['parameters']:,} parameters, half precision. Licence: Apache-2.0, as far as the "
        "data below allows.",
        "",
        f"Trained in {found['seconds'] / 60:.0f} minutes, seed {found['seed']}, on:",
        "",
        *[f"- {line}" for line in found["data_used"]],
        "",
        "| on held-out data | before | after |",
        "|---|---|---|",
        *[
            f"| {name} | {found['before'].get(name, float('nan')):.3f} | {value:.3f} |"
            for name, value in found["after"].items()
        ],
        "",
        "| option | value |",
        "|---|---|",
        *[f"| {name} | {value} |" for name, value in found["options"].items()],
        "",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in found["versions"].items()) + ".",
        "",
    ]
    return "\n".join(lines)
