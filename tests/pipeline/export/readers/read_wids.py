"""Prints key -> [SHA-256 of the image, caption] of every sample that wids finds by an index.json, last first."""

import hashlib
import json
import sys

import wids

data = wids.ShardListDataset(sys.argv[1], cache_dir=sys.argv[2], keep=True, transformations=[])
found = {}
for number in reversed(range(len(data))):
    sample = data[number]
    image = next(sample[suffix] for suffix in (".jpg", ".png") if suffix in sample).read()
    found[sample["__key__"]] = [hashlib.sha256(image).hexdigest(), sample[".txt"].read().decode()]
print(json.dumps(found))
