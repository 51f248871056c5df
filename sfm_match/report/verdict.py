"""The verdict: how a run ended, in a sentence, and how bad that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfm_match.report.findings import Finding, Severity

GOOD, WARNING, BAD = "good", "warning", "bad"
_MOST, _HALF = 0.9, 0.5
_LARGE_ERROR = 2.0


@dataclass(frozen=True)
class Verdict:
    """How a run ended.

    Attributes:
        level: `good`, `warning` or `bad`.
        headline: one sentence without a full stop.
        reasons: what is to be said about it, one sentence each.
    """

    level: str
    headline: str
    reasons: tuple[str, ...]


def judge(
    results: Mapping[str, Any], registered: int | None, findings: Sequence[Finding]
) -> Verdict:
    """Return the verdict.

    It is good if at least nine of ten images are in one model, with a mean reprojection error of
    at most 2 pixels, and no finding is a problem; bad if there is no model, or less than half of
    the images are in it.

    Args:
        results: the content of `results.json`.
        registered: images of the model, None where there is no model.
        findings: those of the doctor.
    """
    total = len(results["images"].keys() | results["failures"].keys())
    mapped = results["stages"].get("map")
    if registered is None:
        if mapped is None:
            done = ", ".join(results["stages"]) or "none"
            return Verdict(BAD, "Not reconstructed yet", (f"stages that were run: {done}",))
        reason = mapped.get("reason") or "the folder of the model is missing"
        return Verdict(BAD, "No model came out", tuple(reason.split("; ")))
    share = registered / max(total, 1)
    reasons = list(_reasons(results, total - registered, findings))
    level = BAD if share < _HALF else WARNING if reasons and share < _MOST else GOOD
    if level == GOOD and _is_doubtful(results, findings):
        level = WARNING
    whole = registered == total
    headline = (
        f"All {total} images are in one model"
        if whole
        else f"{registered} of {total} images are in the model"
    )
    return Verdict(level, headline, tuple(reasons))


def _is_doubtful(results: Mapping[str, Any], findings: Sequence[Finding]) -> bool:
    return _error(results) > _LARGE_ERROR or any(f.severity >= Severity.PROBLEM for f in findings)


def _error(results: Mapping[str, Any]) -> float:
    models = results["stages"].get("map", {}).get("models") or [{}]
    return float(models[0].get("reprojection_error", 0.0))


def _reasons(results: Mapping[str, Any], missing: int, findings: Sequence[Finding]) -> list[str]:
    reasons = []
    failures = len(results["failures"])
    if missing:
        left_out = f", {failures} of them because the file cannot be used" if failures else ""
        reasons.append(f"{missing} images are not in it{left_out}")
    smaller = len(results["stages"].get("map", {}).get("models", ())) - 1
    if smaller > 0:
        reasons.append(f"the rest is in {smaller} smaller models, in the folder models")
    if _error(results) > _LARGE_ERROR:
        reasons.append(
            f"the mean reprojection error of {_error(results):.2f} px is large: at most "
            f"{_LARGE_ERROR:g} px is usual"
        )
    problems = [f.what for f in findings if f.severity >= Severity.PROBLEM]
    return [*reasons, *problems]
