"""What the doctor found: one finding for each kind of thing that is wrong or worth knowing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, SupportsInt

_NUM_SHOWN = 5


class Severity(IntEnum):
    """How bad a finding is.

    A note is worth knowing and harms nothing by itself; a warning costs accuracy or images; with a
    problem there is no model, or one that is wrong.
    """

    NOTE = 0
    WARNING = 1
    PROBLEM = 2


@dataclass(frozen=True)
class Place:
    """An image or a pair of images that a finding is about.

    Attributes:
        images: one or two names.
        detail: what is to be said of it, such as "17 inliers"; may be empty.
    """

    images: tuple[str, ...]
    detail: str = ""

    def __str__(self) -> str:
        names = " - ".join(self.images)
        return f"{names} ({self.detail})" if self.detail else names


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        severity: how bad it is.
        code: its kind, one of `sfm_match.report.doctor.CODES`, for programs.
        what: what it is, with numbers; a sentence without a full stop.
        where: the images or pairs, the worst first; empty where it is of the whole database.
        advice: what to try, with the commands and options of this package.
    """

    severity: Severity
    code: str
    what: str
    where: tuple[Place, ...]
    advice: str

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON has it; the severity is its name in lower case."""
        return {
            "severity": self.severity.name.lower(),
            "code": self.code,
            "what": self.what,
            "where": [{"images": list(p.images), "detail": p.detail} for p in self.where],
            "advice": self.advice,
        }


def count(num: SupportsInt, noun: str) -> str:
    """Return a number with its noun, as in "1 image" and "2 images"."""
    return f"{num} {noun}" if int(num) == 1 else f"{num} {noun}s"


def worst(findings: Sequence[Finding]) -> Severity | None:
    """Return the severity of the worst finding, None where there is none."""
    return max((finding.severity for finding in findings), default=None)


def format_findings(findings: Sequence[Finding]) -> str:
    """Return the findings as text, the worst first."""
    ordered = sorted(findings, key=lambda finding: -finding.severity)
    return "\n".join(map(_format, ordered)) or "nothing found"


def _format(finding: Finding) -> str:
    lines = [f"{finding.severity.name.lower()} [{finding.code}]: {finding.what}"]
    if finding.where:
        rest = len(finding.where) - _NUM_SHOWN
        more = f" and {rest} more" if rest > 0 else ""
        lines.append(f"  where: {', '.join(map(str, finding.where[:_NUM_SHOWN]))}{more}")
    lines.append(f"  try: {finding.advice}")
    return "\n".join(lines)
