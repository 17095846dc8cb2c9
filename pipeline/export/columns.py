"""A sample as a row: one set of columns for every shard of an export, whatever members its samples have."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from pipeline.export.format import Layout, Sample
from pipeline.shards.rows import IMAGE_SUFFIXES, caption_in_json, read_caption
from schemas.recipe import ROW_COLUMNS

CAPTION_MEMBERS = {"txt", "json"}


@dataclass(frozen=True)
class Columns:
    """The columns: `ROW_COLUMNS`, then every other member by its suffix, then the scores."""

    layout: Layout

    @cached_property
    def others(self) -> dict[str, str]:
        """Suffix -> column of the members beside image, `.txt` and `.json`; `SUFFIX_member` where a name is taken."""
        taken = {*ROW_COLUMNS, *self.layout.scores.names}
        found = {suffix for one in self.layout.suffixes for suffix in one if suffix != image(one)} - CAPTION_MEMBERS
        return {suffix: f"{suffix}_member" if suffix in taken else suffix for suffix in sorted(found)}

    @cached_property
    def schema(self) -> pa.Schema:
        """Their Arrow types; null where a sample has no such member or score."""
        text = [pa.field(name, pa.binary() if name == "image" else pa.string()) for name in ROW_COLUMNS]
        members = [pa.field(name, pa.binary()) for name in self.others.values()]
        return pa.schema([*text, *members, *(pa.field(field.name, field.type) for field in self.layout.scores)])

    def row(self, sample: Sample) -> dict[str, Any]:
        """A sample's values by column.

        The image is the one that was scored. The caption is the text of `.txt`, or what `.json` says where there is
        none. Bytes of `.json` that are no UTF-8 are spelled out as `\\xNN`.
        """
        members = dict(sample.members)
        suffix = image(members)
        document = members.get("json")
        text = members["txt"] if "txt" in members else caption_in_json(document or b"")[0]
        row = {
            "key": sample.key,
            "image": members.get(suffix or ""),
            "image_suffix": suffix,
            "caption": read_caption(text)[0],
            "json": None if document is None else document.decode(errors="backslashreplace"),
        }
        row |= {column: members.get(name) if name != suffix else None for name, column in self.others.items()}
        return row | {name: sample.scores.get(name) for name in self.layout.scores.names}


def image(suffixes: Any) -> str | None:
    """Which of a sample's suffixes ingest takes for its image."""
    return next((suffix for suffix in IMAGE_SUFFIXES if suffix in suffixes), None)
