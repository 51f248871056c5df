"""Results -> findings and a report."""
