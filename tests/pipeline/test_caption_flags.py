"""People's data in a caption, from the shard to the report: named by a code, repeated nowhere."""

from collections.abc import Callable
from pathlib import Path

from pipeline.cluster import Cluster
from pipeline.explain import story
from pipeline.ledger import read_ledger
from pipeline.present import present
from pipeline.resolve import resolve
from pipeline.run import finish, run
from tests.pools import sample, write_tar

AFTER_DUPLICATES = """  - {kind: caption_safety}
select: [{kind: exact_duplicates, prefer: words}, {kind: caption_flags, flags: [pii_phone]}, {kind: caption_flags}]
"""
SECRETS = ("anna@example.org", "202-555-0123")


def test_a_flagged_caption_is_named_by_its_code_and_not_quoted(
    make_pool: Callable[..., Path], ray_cluster: object
) -> None:
    recipe = make_pool(extra="  - {kind: caption_safety}\nselect: [{kind: caption_flags}]\n")
    captions = [f"write to {SECRETS[0]}", f"call {SECRETS[1]} or {SECRETS[0]}", "a red ball"]
    rows = [sample(number, text) for number, text in enumerate(captions, start=500)]
    write_tar(recipe.parent / "pool/alpha/00009.tar", rows)
    with Cluster(workers=2) as cluster:
        outcome = run(resolve(recipe), cluster, until="select")
    finish(outcome)
    present(outcome)
    ledger = read_ledger(outcome.folder / "ledger")
    dropped = ledger.filter(ledger["status"] == "dropped")
    assert set(dropped["key"]) == {"s000500", "s000501"} and set(dropped["reason"]) == {"pii_email"}
    for path in (*outcome.folder.rglob("*"), *outcome.resolved.workspace.root.glob("fits/**/*")):
        if path.suffix in (".json", ".html"):
            assert not any(secret in path.read_text() for secret in SECRETS), path.name
    assert "a picture of thing number" in (outcome.folder / "report.html").read_text()
    told = [story(outcome.folder, uid) for uid in sorted(dropped["uid"])]
    assert sorted(facts["scores"]["caption_flags"] for facts in told) == ["pii_email", "pii_email, pii_phone"]


def test_a_flagged_caption_is_not_quoted_beside_its_duplicates_either(
    make_pool: Callable[..., Path], ray_cluster: object
) -> None:
    """Others left for a sample that a second step of the kind dropped: its card stands in the report, silent."""
    recipe = make_pool(extra=AFTER_DUPLICATES)
    survivor = {**sample(500, f"this longest of captions says to write to {SECRETS[0]}"), "__key__": b"longest"}
    rows = [survivor, sample(500, "a red ball"), sample(501, f"call {SECRETS[1]}")]
    write_tar(recipe.parent / "pool/alpha/00009.tar", rows)
    with Cluster(workers=2) as cluster:
        outcome = run(resolve(recipe), cluster, until="select")
    finish(outcome)
    present(outcome)
    by = dict(outcome.ledger.filter(outcome.ledger["status"] == "dropped").select("key", "decided_by").iter_rows())
    assert by == {"s000500": "exact_duplicates", "s000501": "caption_flags", "longest": "caption_flags_2"}
    page = (outcome.folder / "report.html").read_text()
    assert not any(secret in page for secret in SECRETS)
    assert "left, too, by caption_flags_2: pii_email" in page and "a red ball" in page
