"""The public protocols: how their data lie, which pairs they take, and how they score them.

Matching and scoring are apart: what is found in the images goes to stores once, and every estimator
and threshold is scored from there.
"""
