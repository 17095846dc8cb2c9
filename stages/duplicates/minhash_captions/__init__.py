"""Near-duplicate captions by MinHash (Broder, 1997), made for texts of ten words.

Captions are compared in their normal form as sets of character (or word) n-grams. Signatures of these sets are cut into
bands (Indyk and Motwani, 1998), chosen for what is found at the threshold; captions that share a band, and that their
bitmaps do not tell apart, are compared by their exact Jaccard index, so nothing below the threshold is ever taken for a
duplicate. Changed against datasketch, datatrove and text-dedup: pairs are verified; equal captions are one from the
start; a row goes for a witness that stays, not for a chain of others; see `stages/near_texts/` for the machinery.
"""

from stages.duplicates.minhash_captions.rule import MinHashCaptions

__all__ = ["MinHashCaptions"]
