"""What can be trained: one module each, found by its name.

A module has ``DESCRIPTION``, ``Config`` (a frozen pydantic dataclass of the options) and
``prepare(config, data, seed, progress) -> Task``.
"""
