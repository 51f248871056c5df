"""Which images are matched with which."""

from sfm_match.stages.pairs.choose import Choice, make_pairs
from sfm_match.stages.pairs.config import Config
from sfm_match.stages.pairs.images import ImageSet, reader_of
from sfm_match.stages.pairs.propose import propose_pairs

__all__ = ["Choice", "Config", "ImageSet", "make_pairs", "propose_pairs", "reader_of"]
