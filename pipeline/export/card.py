"""The data card: what an export holds and how to read it, for people."""

from typing import Any

from pipeline.export.format import Format


def card(manifest: dict[str, Any], form: Format) -> str:
    """Markdown, made from the manifest alone."""
    parts = [
        f"# {manifest['name']}",
        f"{manifest['samples']} image-text samples ({manifest['distinct_samples']} distinct) in "
        f"{len(manifest['shards'])} {form.title} shards, curated by cuvee.",
        _table("source", manifest["samples"], manifest["sources"]),
        _splits(manifest),
        f"Members of a sample: {', '.join(f'`{suffix}`' for suffix in manifest['members'])}.\n{form.reading}\n"
        "`members.parquet` maps exported keys to source, input shard (by SHA-256) and original key;\n"
        "`manifest.json` lists every shard's SHA-256 and the fingerprints of recipe and pool.",
        f"Recipe fingerprint `{manifest.get('recipe', '')}`, pool fingerprint `{manifest.get('pool', '')}`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(what: str, total: int, counts: dict[str, int]) -> str:
    rows = "\n".join(f"| {name} | {count} | {count / total:.1%} |" for name, count in counts.items())
    return f"| {what} | samples | share |\n| --- | ---: | ---: |\n{rows}"


def _splits(manifest: dict[str, Any]) -> str:
    if not manifest["splits"]:
        return ""
    counts = {name: facts["samples"] for name, facts in manifest["splits"].items()}
    table = _table("split", manifest["samples"], counts)
    return f"{table}\n\nCopies of one image, as far as cuvee recognises them, stand in one split."
