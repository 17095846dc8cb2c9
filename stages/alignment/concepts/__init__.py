"""Zero-shot concepts: which of a recipe's own words an image is closest to, in CLIP's space (arXiv:2103.00020, 3.1).

`stage` writes the columns; `learned` reads prompts that were learned as vectors instead of words (as in Q16,
arXiv:2202.06675, and LAION's safety tags).
"""
