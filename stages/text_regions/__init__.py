"""Where text stands in an image: strokes darker or lighter than their ground, in rows of letters of one size.

Classical and blind to what the letters say: adaptive binarisation in both polarities, connected components, filters of
letter shape and stroke, chains of neighbours that agree in height, stroke width and line (after Epshtein, Ofek and
Wexler, "Detecting text in natural scenes with stroke width transform", CVPR 2010, with areas and outlines in the place
of rays), and a scorer of 97 numbers on what a row of blobs looks like. It lies in no room because several methods stand
on it: the text coverage of an image, and CLIP scores without the text.
"""

from stages.text_regions.regions import MOST_PIXELS, reduced, text_boxes, text_mask

__all__ = ["MOST_PIXELS", "reduced", "text_boxes", "text_mask"]
