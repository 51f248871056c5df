"""Structure from Motion with any local feature and any matcher.

See the README for the command line and for the same in Python.
"""

# pycolmap corrupts zlib's compression when it is loaded first; see tests/test_imports.py.
import zlib  # noqa: F401  # isort: skip

__version__ = "0.1.0"
