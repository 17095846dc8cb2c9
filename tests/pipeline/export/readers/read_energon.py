"""Prints key -> [shape of the image, caption] as energon's training loader gives them for a split."""

import json
import sys

from megatron.energon import WorkerConfig, get_loader, get_train_dataset

data = get_train_dataset(
    sys.argv[1],
    split_part=sys.argv[2],
    worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
    batch_size=None,
    shuffle_buffer_size=8,
    max_samples_per_sequence=None,
    repeat=False,
)
found = {}
for sample in get_loader(data):
    assert type(sample).__name__ == "CaptioningSample" and sample.__key__ not in found
    found[sample.__key__] = [list(sample.image.shape), sample.caption]
print(json.dumps(found))
