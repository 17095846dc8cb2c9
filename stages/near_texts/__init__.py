"""Which texts nearly say the same: n-grams, MinHash signatures, bands, and verified pairs.

Everything goes by normal forms (`stages/normal_form.py`); whoever calls brings texts into theirs first.
"""

from stages.near_texts.pairs import MinHash, Pairs, close_texts, jaccards
from stages.near_texts.shingles import Cut

__all__ = ["Cut", "MinHash", "Pairs", "close_texts", "jaccards"]
