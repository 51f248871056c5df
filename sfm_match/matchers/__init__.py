"""Matchers: one module each, found by name."""
