"""A trained connector as a LLaVA-style model of transformers: tower, projector and language model in one folder.

LLaVA (arXiv:2304.08485) puts an image tower's patch features through a projector into a language model. With
`vision_layer: -2` (or another but the last) ours are LLaVA's, and the folder is a `LlavaForConditionalGeneration`: the
tower as a `CLIPVisionModel`, our two layers as its projector. The features of the last layer come after the tower's
final norm. LLaVA's projector has no norm, ViP-LLaVA's (arXiv:2312.00784) begins with one, so there the folder is a
`VipLlavaForConditionalGeneration` with the tower's norm as its projector's.
"""

from stages.train.llava.write import MOST_APART, write_llava

__all__ = ["MOST_APART", "write_llava"]
