"""CLIP embeddings and their cosine, the CLIP score (arXiv:2104.08718, without its rescaling; arXiv:2304.14108).

`stage` writes the columns, `model` embeds bytes and texts, `weights` finds and names the files. Models are open_clip's.
"""
