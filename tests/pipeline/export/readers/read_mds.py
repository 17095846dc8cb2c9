"""Prints every sample that MosaicML Streaming finds in a folder (and split); bytes as hex."""

import json
import sys

from streaming import StreamingDataset

folder, split = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
data = StreamingDataset(local=folder, split=split, batch_size=1, shuffle=False, validate_hash="sha256")
found = [
    {name: value.hex() if isinstance(value, bytes) else value for name, value in data[number].items()}
    for number in range(len(data))
]
print(json.dumps(found))
