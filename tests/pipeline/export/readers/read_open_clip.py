"""Prints what open_clip's own training loader gives with one worker for a pattern of shards and a number of samples.

Its arguments are parsed by open_clip itself. As [number of samples it counts on, [[image size, caption], ...]].
"""

import json
import sys

from open_clip_train.data import get_wds_dataset
from open_clip_train.params import parse_args

given = {"train-data": sys.argv[1], "train-num-samples": sys.argv[2], "dataset-type": "webdataset"}
given |= {"workers": "1", "batch-size": "7"}
arguments = parse_args([part for name, value in given.items() for part in (f"--{name}", value)])
arguments.world_size = 1
data = get_wds_dataset(arguments, lambda image: image.size, True, tokenizer=lambda text: [text])
data.set_epoch(0)
found = []
for images, captions in data.dataloader:
    found += [[[int(side) for side in image], caption] for image, caption in zip(images, captions, strict=True)]
print(json.dumps([data.dataloader.num_samples, found]))
