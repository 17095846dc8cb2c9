"""Lists of image URLs: recognised and refused with the command that downloads them, for nothing here downloads."""

import csv
import json
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.shards.batch_records import ARROW_FAILS, is_text, text_bytes
from pipeline.shards.beside import below
from pipeline.shards.container import Container
from pipeline.shards.parquet_records import open_parquet
from pipeline.shards.streams import open_bytes
from schemas.errors import RecipeError, ShardError

URL = re.compile(r"\s*[a-z][a-z0-9+.-]*://\S", re.IGNORECASE)
FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".txt": "txt",
}
"""File ending -> `--input_format` of img2dataset."""
CAPTIONS = ("caption", "text", "alt", "alt_text", "title", "description")
LOOKED_AT_BYTES = 256 << 10
LOOKED_AT_ROWS = 100

Columns = dict[str, list[str]]


@dataclass(frozen=True)
class UrlList:
    """A file that lists URLs, and where in it they stand."""

    path: str
    url: str | None
    """None: a plain list, one a line."""
    caption: str | None
    example: str

    def refusal(self) -> RecipeError:
        """What the user reads."""
        where = f"column {self.url!r} of {self.path} holds URLs" if self.url else f"{self.path} is a list of URLs"
        return RecipeError(
            f"{where} (e.g. {self.example.strip()[:80]}); cuvee reads images and does not download: fetch them first, "
            f"e.g. with{self._detour()}\n  {self.command()}\nthen name `shards: OUT/*.tar`"
        )

    def _detour(self) -> str:
        known = os.path.splitext(self.path)[1].lower() in FORMATS
        return "" if known else " (saved as Parquet before, `Dataset.to_parquet`)"

    def command(self) -> str:
        """The command line that downloads it as WebDataset shards."""
        stem, ending = os.path.splitext(self.path)
        form = FORMATS.get(ending.lower(), "parquet")
        file = self.path if ending.lower() in FORMATS else f"{stem}.parquet"
        columns = ["--url_col", self.url] if self.url else []
        columns += ["--caption_col", self.caption] if self.caption else []
        # Its default makes every image a square of 256 px, and sizes could not be told any more.
        words = ["img2dataset", "--url_list", file, "--input_format", form, *columns, "--resize_mode", "no"]
        return shlex.join([*words, "--output_format", "webdataset", "--output_folder", "OUT"])


def refuse_urls(container: Container, values: Sequence[object]) -> None:
    """Refuse a column of image paths that holds URLs; those below the container's root are as good as paths.

    Raises:
        RecipeError: more than half of the values are URLs.
    """
    texts = [below(container.root, value) for value in values if isinstance(value, str) and value]
    if _are_urls(texts):
        example = next(text for text in texts if URL.match(text))
        raise UrlList(container.path, container.image, container.caption, example).refusal()


def url_list(path: str) -> UrlList | None:
    """What a file lists, when its first rows are URLs in some column; None when they are not or cannot be read."""
    try:
        columns = _columns(path)
    except (ShardError, OSError, ValueError, RecursionError, csv.Error, *ARROW_FAILS):
        return None
    url = next((name for name, values in columns.items() if _are_urls(values)), None)
    if url is None:
        return None
    example = next(value for value in columns[url] if URL.match(value))
    names = {name.lower(): name for name in columns if name != url}
    return UrlList(path, url or None, next((names[name] for name in CAPTIONS if name in names), None), example)


def _are_urls(values: Sequence[str]) -> bool:
    return sum(bool(URL.match(value)) for value in values) * 2 > len(values)


def _columns(path: str) -> Columns:
    """The text of a file's first rows by column; of a plain list, under the name ""."""
    form = FORMATS.get(os.path.splitext(path)[1].lower())
    if form == "parquet":
        return _parquet_columns(path)
    with open_bytes(path) as stream:
        lines = stream.read(LOOKED_AT_BYTES).decode(errors="replace").splitlines()[:LOOKED_AT_ROWS]
    if form == "txt":
        return {"": [line for line in lines if line.strip()]}
    if form in ("csv", "tsv"):
        return _gathered(csv.DictReader(lines, delimiter="\t" if form == "tsv" else ","))
    return _gathered(json.loads(line) for line in lines if line.strip()) if form else {}


def _gathered(rows: Iterable[Any]) -> Columns:
    found: Columns = {}
    for row in rows:
        for name, value in row.items() if isinstance(row, dict) else ():
            if isinstance(name, str) and isinstance(value, str) and value:
                found.setdefault(name, []).append(value)
    return found


def _parquet_columns(path: str) -> Columns:
    with open_parquet(path) as file:
        names = [field.name for field in file.schema_arrow if is_text(field.type)]
        batch = next(file.iter_batches(LOOKED_AT_ROWS, columns=names, use_threads=False), None)
    if batch is None:
        return {}
    texts = [text_bytes(column) for column in batch.columns]
    decoded = [[text.decode(errors="replace") for text in column if text] for column in texts]
    return dict(zip(batch.schema.names, decoded, strict=True))
