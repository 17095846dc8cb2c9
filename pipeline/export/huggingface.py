"""A Hugging Face dataset: Parquet under `data/` with an image column, and a data card whose header names its parts."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import yaml

from pipeline.export.format import by_split
from pipeline.export.parquet import Parquet
from schemas.recipe import TRAIN_SPLIT

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ARROW_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64"}
"""Where Arrow calls a type otherwise than the datasets library."""


@dataclass(frozen=True)
class HuggingFace(Parquet):
    """The columns of `Parquet`; the image is the library's `Image`: its bytes, and `KEY.SUFFIX` as its path."""

    title: ClassVar[str] = "Parquet"
    names: ClassVar[str] = "data/{split}-{number:05d}-of-{count:05d}.parquet"
    reading: ClassVar[str] = (
        "`datasets.load_dataset(FOLDER)` opens it: `key`, `image` (decoded), `image_suffix`, `caption`, `json`, other\n"
        "members as bytes under their suffix, then the scores."
    )

    def schema(self) -> pa.Schema:
        """Of every shard, with the library's features in its metadata."""
        plain = self.columns.schema
        fields = [pa.field("image", IMAGE) if field.name == "image" else field for field in plain]
        features = {field.name: _feature(field) for field in plain}
        return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})

    def values(self, field: pa.Field, rows: list[dict[str, Any]]) -> list[Any]:
        """One column of these rows."""
        if field.name != "image":
            return super().values(field, rows)
        return [{"bytes": row["image"], "path": f"{row['key']}.{row['image_suffix']}"} for row in rows]

    def front_matter(self, manifest: dict[str, Any]) -> str:
        """The YAML header: which files make which split, and the features."""
        parts = by_split(manifest["shards"])
        files = [{"split": split or TRAIN_SPLIT, "path": f"data/{split or TRAIN_SPLIT}-*"} for split in parts]
        facts = {
            "configs": [{"config_name": "default", "data_files": files}],
            "dataset_info": {
                "features": [{"name": field.name, **_card_feature(field)} for field in self.columns.schema],
                "splits": [_split_facts(split, shards) for split, shards in parts.items()],
                "download_size": sum(shard["filesize"] for shard in manifest["shards"]),
                "dataset_size": sum(shard["filesize"] for shard in manifest["shards"]),
            },
        }
        return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---\n\n"


def _split_facts(split: str, shards: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": split or TRAIN_SPLIT,
        "num_bytes": sum(shard["filesize"] for shard in shards),
        "num_examples": sum(shard["nsamples"] for shard in shards),
    }


def _name(dtype: pa.DataType) -> str:
    return ARROW_NAMES.get(str(dtype), str(dtype))


def _feature(field: pa.Field) -> dict[str, Any]:
    """As the schema's metadata says it."""
    if field.name == "image":
        return {"_type": "Image"}
    if pa.types.is_list(field.type):
        return {"_type": "List", "feature": {"_type": "Value", "dtype": _name(field.type.value_type)}}
    return {"_type": "Value", "dtype": _name(field.type)}


def _card_feature(field: pa.Field) -> dict[str, str]:
    """As the data card says it."""
    if field.name == "image":
        return {"dtype": "image"}
    if pa.types.is_list(field.type):
        return {"list": _name(field.type.value_type)}
    return {"dtype": _name(field.type)}
