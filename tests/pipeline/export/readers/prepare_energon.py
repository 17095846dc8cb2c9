"""Prepares a copy of an energon export with energon itself, and prints how what it writes differs from ours.

Also reads every member by name through energon's random access, which goes by index.sqlite.
"""

import json
import shutil
import sqlite3
import sys
from pathlib import Path

from megatron.energon.epathlib import EPath
from megatron.energon.flavors.webdataset.itar_reader import SqliteITarEntryReader
from megatron.energon.flavors.webdataset.prepare import WebdatasetPreparator

ours, theirs = Path(sys.argv[1]), Path(sys.argv[2])
shutil.copytree(ours, theirs)
tars = list(json.loads((ours / ".nv-meta" / ".info.json").read_text())["shard_counts"])
for written in [*theirs.rglob("*.tar.idx"), *(theirs / ".nv-meta").iterdir()]:
    written.unlink()
WebdatasetPreparator.prepare_dataset(theirs, tars, split_parts_ratio=[("train", 1.0)], workers=1)


def rows(folder: Path) -> dict[str, list[object]]:
    base = sqlite3.connect(folder / ".nv-meta" / "index.sqlite")
    found = {name: sorted(base.execute(f"SELECT * FROM {name}")) for name in ("samples", "sample_parts")}
    shape = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY name"
    columns = [base.execute(f"PRAGMA table_info({name})").fetchall() for name in ("samples", "sample_parts")]
    return found | {"shape": base.execute(shape).fetchall(), "columns": columns}


different = [name for name in tars if (ours / f"{name}.idx").read_bytes() != (theirs / f"{name}.idx").read_bytes()]
counts = [json.loads((folder / ".nv-meta" / ".info.json").read_text())["shard_counts"] for folder in (ours, theirs)]
store = SqliteITarEntryReader(EPath(str(ours)), key_is_full_entryname=True)
wanted = json.loads(Path(sys.argv[3]).read_text())
wrong = [name for name, content in wanted.items() if store[name][0].hex() != content]
left, right = rows(ours), rows(theirs)
answer = {
    "different_indexes": different,
    "different_tables": [name for name in left if left[name] != right[name]],
    "same_counts": counts[0] == counts[1],
    "wrong_members": wrong,
}
print(json.dumps(answer))
