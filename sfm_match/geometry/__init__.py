"""Functions of arrays: epipolar and pose errors, alignment, two-view estimation."""
