"""Sentences below what is shown: how much of it that is, and how to read it."""

from __future__ import annotations

from sfm_match.report.graph import Drawing
from sfm_match.report.model_view import ModelView


def images_note(shown: int, there: int) -> str:
    """Return what part of the images is shown; empty for all of them."""
    if shown == there:
        return ""
    return f"{shown:,} of {there:,} images are shown on this page, evenly chosen."


def model_notes(view: ModelView) -> list[str]:
    """Return what is to be said below the model."""
    shown, inside = len(view.points), view.num_points - view.num_outside
    notes = [
        f"{shown:,} points are shown."
        if shown == inside
        else f"{shown:,} of {inside:,} points are shown, evenly chosen."
    ]
    if view.num_outside:
        notes.append(f"{view.num_outside:,} more lie far outside and are left out.")
    if view.true_names:
        notes.append(
            "The true cameras are drawn larger, aligned to the others by a similarity of the "
            "centres."
        )
    if view.no_truth:
        notes.append(f"{view.no_truth[0].upper()}{view.no_truth[1:]}.")
    return notes


def graph_notes(drawing: Drawing, num_lost: int) -> list[str]:
    """Return what is to be said below the match graph, of which some images are in no model."""
    notes = ["The more verified matches a pair has, the stronger its line."]
    if len(drawing.edges) < drawing.num_edges:
        notes.append(
            f"Of {drawing.num_edges:,} verified pairs the strongest are drawn, and those that link "
            "the rest."
        )
    num_groups = int(drawing.groups.max(initial=-1)) + 1
    if num_groups > 1:
        notes.append(f"The images fall into {num_groups:,} groups that no pair links.")
    if num_lost:
        notes.append("Images that are not in the model are hollow.")
    return notes
