"""SemDeDup: semantic duplicates by image embedding (Abbas et al., arXiv:2303.09540).

Embeddings are clustered; inside a cluster, rows far from the centroid first, a row is dropped iff its cosine with any
row before it exceeds 1 - epsilon. Changed: epsilon may be solved for from the fraction to keep; similarities are exact
sums, the same bits on every machine; a cluster of any size is compared in blocks, never cut.
"""

from stages.duplicates.semdedup.rule import SemDeDup

__all__ = ["SemDeDup"]
