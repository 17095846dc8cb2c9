"""Writes rows (a JSON list; bytes as hex) with MosaicML Streaming's own writer: one shard into a new folder."""

import json
import sys
from pathlib import Path

from streaming import MDSWriter

kinds, rows = json.loads(Path(sys.argv[1]).read_text())
with MDSWriter(out=sys.argv[2], columns=kinds, hashes=["sha256"], size_limit=None) as writer:
    for row in rows:
        writer.write({name: bytes.fromhex(row[name]) if kind == "bytes" else row[name] for name, kind in kinds.items()})
print("true")
