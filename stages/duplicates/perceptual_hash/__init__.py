"""Near-duplicate images by 64-bit perceptual hash (pHash): the stage that hashes, the rule that compares.

A hash keeps which low DCT frequencies of a 32 x 32 grey image lie above their median; resizing, recompression and small
edits flip few bits. All pairs within a Hamming distance are found by multi-index hashing (Norouzi et al.,
arXiv:1307.2982), so no pair is missed and few others are looked at.
"""

from stages.duplicates.perceptual_hash.rule import NearDuplicateImages
from stages.duplicates.perceptual_hash.stage import PerceptualHash

__all__ = ["NearDuplicateImages", "PerceptualHash"]
