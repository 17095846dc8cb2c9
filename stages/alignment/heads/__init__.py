"""Heads that others trained on CLIP embeddings: aesthetic scores, NSFW probabilities, any regressor or classifier.

A head is a safetensors file. Tensors, all F16, F32 or F64:

- `linear_head`: `weight` (k, d) and `bias` (k,);
- `mlp_head`: `layers.0.weight` (h, d), `layers.0.bias` (h,), `layers.1.weight` ... to the last layer's (k, ·);
- in either, where the head was trained on standardised inputs: `mean` (d,) and `std` (d,), applied after `normalize`.

Metadata, under the key `head`, a JSON object, all of whose parts a recipe may set instead: `hidden`, what follows every
layer but the last (`relu` or `identity`, one word for all or a list of one per layer); `activation`, what follows the
last one (`identity`, `sigmoid` or `softmax`); `normalize`, whether inputs are brought to norm 1 first (`unit`, the
default) or taken as they are stored (`none`).

`weights` reads and applies such files, `stage` holds the two stages, `convert` makes the files from `.pth`.
"""
