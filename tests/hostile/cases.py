"""A small pool of everything that can be wrong with one, and what has to become of it."""

import gzip
import io
import json
import os
import random
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile import images

KEPT = ("kept", None, None)
LOOKALIKES = ("nan", "NaN", "None", "null", "NA", "N/A", "inf", "-inf", "1e5", "true", "0x1F", "007", "1.0", "=1+1")
"""Text that table readers take for something else."""
CAPTION = b"a thing on a table"

Fate = tuple[str, str | None, str | None]
"""Status, who decided it, reason."""
Member = tuple[str, bytes]


@dataclass
class Shard:
    """One file of the pool: its bytes, and its ledger lines in order."""

    content: bytes
    fates: list[tuple[str | None, Fate]]
    """(key, fate)."""
    members: list[dict[str, bytes]] = field(default_factory=list)
    """Per kept line in order, what the export has to hold by suffix."""


def ingest(reason: str) -> Fate:
    return ("quarantined", "ingest", reason)


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member without data."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def tar(members: list[Member | tarfile.TarInfo], form: int = tarfile.PAX_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            content = b"" if isinstance(member, tarfile.TarInfo) else member[1]
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def sample(key: str, number: int, caption: bytes = CAPTION) -> list[Member | tarfile.TarInfo]:
    return [(f"{key}.jpg", images.jpeg(number)), (f"{key}.txt", caption)]


class Listing:
    """Gathers members, and beside them what has to become of their samples."""

    def __init__(self) -> None:
        self.members: list[Member | tarfile.TarInfo] = []
        self.fates: list[tuple[str | None, Fate]] = []
        self.kept: list[dict[str, bytes]] = []

    def add(self, key: str, fate: Fate, *members: Member | tarfile.TarInfo) -> None:
        self.members += members
        self.fates.append((key, fate))
        if fate == KEPT:
            named = [member for member in members if not isinstance(member, tarfile.TarInfo)]
            self.kept.append({name[len(key) + 1 :].lower(): content for name, content in named})

    def shard(self, form: int = tarfile.PAX_FORMAT) -> Shard:
        return Shard(tar(self.members, form), self.fates, self.kept)


def image_shard() -> Shard:
    found = Listing()
    for name, (suffix, content) in images.sound().items():
        found.add(name, KEPT, (f"{name}.{suffix}", content), (f"{name}.txt", CAPTION))
    cases = [(name, *case) for name, case in images.broken().items()]
    cases += [(f"bomb_{name}", "jpg", content, reason) for name, (content, reason) in images.bombs().items()]
    for name, suffix, content, reason in cases:
        fate: Fate = ("quarantined", "image_header", reason) if reason else KEPT
        found.add(name, fate, (f"{name}.{suffix}", content), (f"{name}.txt", CAPTION))
    return found.shard()


def caption_shard() -> Shard:
    found = Listing()
    text = "two dogs \u00e9"
    sound = {
        "mark": b"\xef\xbb\xbf" + text.encode(),
        "megabyte": b"word " * (1 << 18),
        "one_word_megabyte": b"x" * (1 << 20),
        "spaces_megabyte": b" " * (1 << 20) + b"end",
        "angles": b"<" * 100_000,
        "marks": ("e" + "\u0315\u0300" * 50_000).encode(),
        "right_to_left": "\u200f\u05e9\u05dc\u05d5\u05dd \u061c".encode(),
        "quotes": b"\"quoted\", 'it''s'; \\n {{7*7}} ${HOME} `id` ../../etc/passwd",
        "angle": b"1 < 2 and 3 > 2 &amp; more",
        "lines": b"one\r\ntwo\tthree\n",
        **{f"like_{number}": word.encode() for number, word in enumerate(LOOKALIKES)},
    }
    quarantined = {
        "empty": (b"", "empty_caption"),
        "blank": (b" \t\r\n", "empty_caption"),
        "latin1": ("caf\u00e9".encode("latin-1"), "caption_not_utf8"),
        "utf16": (text.encode("utf-16"), "caption_not_utf8"),
        "utf16_bare": (b"\0t\0w\0o", "caption_not_text"),
        "utf32": (text.encode("utf-32"), "caption_not_utf8"),
        "surrogate": ("a\ud800".encode(errors="surrogatepass"), "caption_not_utf8"),
        "overlong": (b"a\xc0\x80b", "caption_not_utf8"),
        "nul": (b"a dog\0a cat", "caption_not_text"),
        "too_large": (b"x" * ((16 << 20) + 1), "member_too_large"),
    }
    dropped = {
        "bell": (b"a\x07 dog \x1b[2J", "at_most", "caption_control_chars"),
        "override": ("a \u202egpj.exe\u202c dog".encode(), "at_most_2", "caption_bidi_controls"),
        "script": (b"<script>alert(1)</script> a dog", "at_most_3", "caption_markup"),
    }
    for number, (key, caption) in enumerate(sound.items(), 100):
        found.add(key, KEPT, *sample(key, number, caption))
    for number, (key, (caption, reason)) in enumerate(quarantined.items(), 200):
        found.add(key, ingest(reason), *sample(key, number, caption))
    for number, (key, (caption, step, column)) in enumerate(dropped.items(), 300):
        found.add(key, ("dropped", step, f"above_{column}"), *sample(key, number, caption))
    found.add("missing", ingest("missing_caption"), ("missing.jpg", images.jpeg(400)))
    found.add("invisible", ("quarantined", "caption_text", "empty_caption"), *sample("invisible", 401, b"\xe2\x80\x8b"))
    return found.shard()


def member_shard() -> Shard:
    found = Listing()
    for number, word in enumerate(LOOKALIKES):
        if "/" not in word and "." not in word:
            found.add(word, KEPT, *sample(word, number))
    found.add("dots", KEPT, ("dots.a.b.jpg", b"a mask"), *sample("dots", 20))
    found.add("fol.der/key", KEPT, *sample("fol.der/key", 21))
    found.add("n" * 290, KEPT, *sample("n" * 290, 22))
    found.add("caf\u00e9 \u202eabc", KEPT, *sample("caf\u00e9 \u202eabc", 23))
    found.add("upper", KEPT, ("upper.JPG", images.jpeg(24)), ("upper.TXT", CAPTION), ("upper.json", b'{"n": NaN}'))
    found.add("sidecar", KEPT, ("sidecar.jpg", images.jpeg(25)), ("sidecar.json", b'{"caption": "from the side"}'))
    found.add("bad_json", ingest("broken_json"), *sample("bad_json", 26), ("bad_json.json", b'{"caption": '))
    found.add("no_json", ingest("broken_json"), *sample("no_json", 27), ("no_json.json", b""))
    found.add("deep_json", ingest("broken_json"), *sample("deep_json", 28), ("deep_json.json", b"[" * 99_999))
    found.add("text_only", ingest("missing_image"), ("text_only.txt", CAPTION))
    found.add("twice", ingest("duplicate_member"), *sample("twice", 29), ("twice.JPG", images.jpeg(30)))
    found.add("apart", ingest("missing_caption"), ("apart.jpg", images.jpeg(31)))
    found.add("between", KEPT, *sample("between", 32))
    found.add("apart", ingest("duplicate_key"), ("apart.txt", CAPTION))
    found.add("between", ingest("duplicate_key"), *sample("between", 33))
    found.add("README", ingest("not_a_sample"), ("README", b"hello"))
    for number, name in enumerate(("../up", "a/../../up", "/etc/absolute", "C:/absolute")):
        found.add(name, ingest("unsafe_name"), *sample(name, 40 + number))
    for name in ("..\\up.jpg", "..\\up.txt"):  # everything before the first dot is nothing, so each stands for itself
        found.add(name, ingest("unsafe_name"), (name, CAPTION))
    for name, kind in (("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE)):
        link = entry(f"{name}.txt", kind, "/etc/passwd")
        found.add(name, ingest("not_a_regular_file"), (f"{name}.jpg", images.jpeg(50)), link)
    image_link = entry("image_link.jpg", tarfile.SYMTYPE, "../secret.jpg")
    found.add("image_link", ingest("not_a_regular_file"), image_link, ("image_link.txt", CAPTION))
    for name, kind in (("char", tarfile.CHRTYPE), ("block", tarfile.BLKTYPE), ("pipe", tarfile.FIFOTYPE)):
        found.add(name, ingest("not_a_regular_file"), entry(f"{name}.jpg", kind))
    sparse = entry("sparse.jpg", tarfile.REGTYPE)
    sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999999"}
    found.add("sparse", ingest("not_a_regular_file"), sparse, ("sparse.txt", CAPTION))
    nul = entry("x.jpg", tarfile.REGTYPE)
    nul.pax_headers = {"path": "nul\0x.jpg"}
    found.add("nul\0x", ingest("unsafe_name"), nul)
    long = "l" * 5000
    found.add(_shortened(long), ingest("unsafe_name"), *sample(long, 51))
    crowd = [(f"crowd.{number}", b"") for number in range(1001)]
    found.add("crowd", ingest("too_many_members"), *sample("crowd", 52), *crowd)
    found.add("last", KEPT, *sample("last", 53))
    return found.shard()


def _shortened(key: str) -> str:
    import xxhash

    return f"{key[:200]}...{xxhash.xxh3_128_hexdigest(key.encode())}"


def whole_shard(first: int, keys: str = "abc") -> Shard:
    """Sound samples."""
    found = Listing()
    for number, key in enumerate(keys, first):
        found.add(key, KEPT, *sample(key, number))
    return found.shard()


def without_end(content: bytes) -> bytes:
    """Only the blocks of a tar that hold something."""
    body = content.rstrip(b"\0")
    return body + bytes(-len(body) % tarfile.BLOCKSIZE)


def cut_shard() -> Shard:
    """Ends inside the image of its third sample."""
    whole = whole_shard(60)
    stop = len(without_end(tar(sample("a", 60) + sample("b", 61)))) + 700
    return Shard(whole.content[:stop], [*whole.fates[:2], ("c", ingest("truncated_shard"))], whole.members[:2])


def lying_shard() -> Shard:
    """Its second sample claims a terabyte."""
    first = whole_shard(64, "a")
    header = tarfile.TarInfo("b.jpg")
    header.size = 1 << 40
    content = without_end(first.content) + header.tobuf(tarfile.GNU_FORMAT) + b"x" * 2000
    return Shard(content, [*first.fates, ("b", ingest("truncated_shard"))], first.members)


def shards() -> dict[str, Shard]:
    """File name -> shard, tars all of them by name."""
    one, two = whole_shard(70, "ab"), whole_shard(72, "cd")
    unreadable = [(None, ingest("unreadable_shard"))]
    noise = random.Random(0).randbytes(3000)
    behind = whole_shard(74, "ab")
    behind.content += noise
    behind.fates.append((None, ingest("broken_archive")))
    endless = whole_shard(84)
    endless.content = without_end(endless.content)
    zipped = whole_shard(76)
    zipped.content = gzip.compress(zipped.content, mtime=0)
    return {
        "images.tar": image_shard(),
        "captions.tar": caption_shard(),
        "members.tar": member_shard(),
        "across_1.tar": whole_shard(80, "xy"),
        "across_2.tar": whole_shard(80, "xy"),  # the same bytes
        "across_3.tar": whole_shard(80, "xyz"),  # the same samples, and another
        "across_4.tar": whole_shard(90, "xy"),  # the same keys
        "cut.tar": cut_shard(),
        "lying.tar": lying_shard(),
        "no_end.tar": endless,
        "empty.tar": Shard(b"", [(None, ingest("empty_shard"))]),
        "zeros.tar": Shard(bytes(10_240), [(None, ingest("empty_shard"))]),
        "noise.tar": Shard(noise, list(unreadable)),
        "html.tar": Shard(images.HTML * 20, list(unreadable)),
        "gzip_in_gzip.tar": Shard(gzip.compress(gzip.compress(noise, mtime=0), mtime=0), list(unreadable)),
        "behind.tar": behind,
        "concatenated.tar": Shard(one.content + two.content, one.fates + two.fates, one.members + two.members),
        "gzip.tar": zipped,
    }


def table_lines() -> list[tuple[dict[str, str], Fate]]:
    """Lines of a table of images, and their fates."""
    lines: list[tuple[dict[str, str], Fate]] = []
    for word in LOOKALIKES:
        lines.append(({"key": word, "image": "plain.jpg", "caption": word, "note": word}, KEPT))
    bad = {"": "empty_caption", " ": "empty_caption", "a\0b": "caption_not_text"}
    for number, (caption, reason) in enumerate(bad.items()):
        line = {"key": f"bad{number}", "image": "plain.jpg", "caption": caption, "note": ""}
        lines.append((line, ingest(reason)))
    names = {"../secret.jpg": "unsafe_name", "/etc/passwd": "unsafe_name", "link.jpg": "unsafe_name"}
    names |= {"gone.jpg": "missing_image", "pipe.jpg": "not_a_regular_file", "n" * 300: "unreadable_image"}
    for number, (name, reason) in enumerate(names.items()):
        lines.append(({"key": f"name{number}", "image": name, "caption": "c", "note": ""}, ingest(reason)))
    return lines


def write_tables(home: Path) -> None:
    """The same lines as JSONL, CSV and, with the images in it, Parquet."""
    import csv

    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = home / "photos"
    folder.mkdir()
    (folder / "plain.jpg").write_bytes(images.jpeg(0))
    os.symlink(home / "secret.jpg", folder / "link.jpg")
    os.mkfifo(folder / "pipe.jpg")
    lines = [line for line, _ in table_lines()]
    (folder / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with open(folder / "lines.csv", "w", newline="") as stream:
        table = csv.DictWriter(stream, list(lines[0]))
        table.writeheader()
        table.writerows(lines)
    whole = [line | {"image": images.jpeg(0)} for line in lines if line["image"] == "plain.jpg"]
    pq.write_table(pa.Table.from_pylist(whole), home / "lines.parquet")


def write(pool: Path) -> dict[str, Shard]:
    """Write the pool; files that are no files are among it."""
    pool.mkdir(parents=True)
    found = shards()
    for name, shard in found.items():
        (pool / name).write_bytes(shard.content)
    unreadable: list[tuple[str | None, Fate]] = [(None, ingest("unreadable_shard"))]
    (pool / "folder.tar").mkdir()
    (pool.parent / "elsewhere").mkdir()
    os.symlink(pool.parent / "elsewhere", pool / "link_to_folder.tar")
    # A link that the pattern itself names is the user's own: download caches consist of them.
    found["link_to_shard.tar"] = whole_shard(95, "ab")
    (pool.parent / "elsewhere/real.tar").write_bytes(found["link_to_shard.tar"].content)
    os.symlink(pool.parent / "elsewhere/real.tar", pool / "link_to_shard.tar")
    os.mkfifo(pool / "pipe.tar")
    os.symlink(pool.parent / "gone", pool / "dangling.tar")
    for name in ("folder.tar", "link_to_folder.tar", "pipe.tar"):
        found[name] = Shard(b"", unreadable)
    found["dangling.tar"] = Shard(b"", [(None, ingest("missing_shard"))])
    return found
