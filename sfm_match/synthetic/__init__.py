"""Rendered scenes with exact images, depth, poses and correspondences."""
