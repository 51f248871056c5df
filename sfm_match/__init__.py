"""Structure from Motion with any local feature and any matcher.

`Recipe` holds the settings and `Run` the stages; see the README.
"""

# pycolmap corrupts zlib's compression when it is loaded first; see tests/test_imports.py.
import zlib  # noqa: F401  # isort: skip

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfm_match.io.store import Store
    from sfm_match.spec import Spec
    from sfm_match.stages.evaluate import evaluate_model
    from sfm_match.stages.evaluate_pairs import evaluate_pairs
    from sfm_match.stages.recipe import Recipe
    from sfm_match.stages.run import Run
    from sfm_match.types import Correspondences, Features, Matches, Pair, TwoView, View

__version__ = "0.1.0"

_HOMES = {
    "Correspondences": "sfm_match.types",
    "Features": "sfm_match.types",
    "Matches": "sfm_match.types",
    "Pair": "sfm_match.types",
    "Recipe": "sfm_match.stages.recipe",
    "Run": "sfm_match.stages.run",
    "Spec": "sfm_match.spec",
    "Store": "sfm_match.io.store",
    "TwoView": "sfm_match.types",
    "View": "sfm_match.types",
    "evaluate_model": "sfm_match.stages.evaluate",
    "evaluate_pairs": "sfm_match.stages.evaluate_pairs",
}

__all__ = [
    "Correspondences",
    "Features",
    "Matches",
    "Pair",
    "Recipe",
    "Run",
    "Spec",
    "Store",
    "TwoView",
    "View",
    "evaluate_model",
    "evaluate_pairs",
]


def __getattr__(name: str) -> Any:
    # On demand: most uses of the package need neither torch nor pycolmap.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
