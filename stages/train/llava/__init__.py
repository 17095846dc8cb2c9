"""A trained connector as a LLaVA-style model of transformers: tower, projector and language model in one folder.

LLaVA (arXiv:2304.08485) puts an image tower's patch features through a projector into a language model. Ours are the
features of the last layer after the tower's final norm, which is what ViP-LLaVA's projector (arXiv:2312.00784) begins
with: a LayerNorm, Linear, GELU, Linear. So the folder is a `VipLlavaForConditionalGeneration` with the tower as a
`CLIPVisionModel`, the tower's final norm as the projector's, and our two layers as they are.
"""

from stages.train.llava.write import MOST_APART, write_llava

__all__ = ["MOST_APART", "write_llava"]
