"""Feature extractors: one module each, found by name."""
