"""Refiners of correspondences, one module for each."""
