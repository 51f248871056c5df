"""The tests. Where pytest-xdist runs one for each core, each has one core."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before anything that reads these is imported
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
