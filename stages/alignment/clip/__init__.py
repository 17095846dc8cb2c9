"""CLIP embeddings and their cosine, the CLIP score (arXiv:2104.08718, without its rescaling; arXiv:2304.14108)."""
