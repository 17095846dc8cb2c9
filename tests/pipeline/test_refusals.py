"""What cannot work is refused before any work, in words that say what to do; nothing is half-written."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.resolve import load_recipe, resolve
from schemas.errors import RecipeError
from tests.pools import sample, write_tar

CASES = {
    "unknown kind": (
        "kind: caption_text",
        "kind: caption_txt",
        "'caption_txt'; did you mean 'caption_text'",
    ),
    "unknown key": ("seed: 3", "sead: 3", "sead: unknown key; did you mean 'seed'"),
    "unknown setting": ("kind: image_header", "kind: image_header, decoode: true", "decoode: unknown key"),
    "missing shard": ("pool/alpha/*.tar", "pool/alpha/00077.tar", "00077.tar"),
    "empty pool": ("pool/alpha/*.tar", "pool/nothing/*.tar", "nothing"),
    "a name of the hub": ('shards: "pool/alpha/*.tar"', 'huggingface: "laion/art"', "save_to_disk(FOLDER)` makes one"),
    "no saved dataset": ('shards: "pool/alpha/*.tar"', 'huggingface: "pool/alpha"', "state.json is missing"),
    "a root of tars": ('pool/alpha/*.tar"', 'pool/alpha/*.tar", root: x', "`root` belongs to `parquet`"),
    "a folder of shards": ("pool/alpha/*.tar", "pool/alpha", "name those in it"),
    "two places": ('shards: "pool/alpha/*.tar"', "shards: a.tar, parquet: b.parquet", "name exactly one"),
    "unknown column": (
        "target: {",
        "select: [{kind: at_least, column: wrds, value: 1}]\ntarget: {",
        "'wrds', which nothing writes; did you mean 'words'",
    ),
    "unscored column": (
        "target: {",
        "select: [{kind: at_least, column: clip_score, value: 0.2}]\ntarget: {",
        "no score step of this recipe writes it",
    ),
    "a target that is not there": (
        'target: {shards: "target/*.tar"}',
        "select: [{kind: dsir, target: target, samples: 3}]",
        "needs a target",
    ),
    "a model that is not there": (
        "  - {kind: caption_text}",
        '  - {kind: clip, model: "local-dir:./no-such-model"}',
        "no-such-model",
    ),
    "a step twice": ("  - {kind: caption_text}", "  - {kind: image_header}", "'image_header' stands twice"),
    "a caption rule after captions were merged": (
        "target: {",
        "select: [{kind: bimodal_duplicates, images: exact, merge_captions: true}, "
        "{kind: at_most, column: words, value: 9}]\ntarget: {",
        "'at_most' judges by words, after 'bimodal_duplicates' has merged captions",
    ),
    "random weights": ("  - {kind: caption_text}", "  - {kind: clip, model: ViT-B-32}", "pretrained"),
}


@pytest.mark.parametrize("text", ["name: 2020-13-45", f"seed: {'9' * 5000}", "[" * 5000, "name: [", "a: \x00"])
def test_what_is_no_yaml_is_refused_in_words(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"recipe\.yaml is not YAML"):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("case", CASES)
def test_refused(make_pool: Callable[..., Path], case: str) -> None:
    old, new, message = CASES[case]
    recipe = make_pool()
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))
    with pytest.raises(RecipeError) as refusal:
        resolve(recipe)
    assert message in str(refusal.value)
    assert not (recipe.parent / "work").exists()


def test_an_export_folder_of_somebody_else_is_refused(make_pool: Callable[..., Path]) -> None:
    from pipeline.export import refuse_foreign

    recipe = make_pool(extra="export: {kind: webdataset}\n")
    folder = resolve(recipe).export_folder
    folder.mkdir(parents=True)
    refuse_foreign(folder, "small")
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(RecipeError, match="no cuvee export"):
        refuse_foreign(folder, "small")
    (folder / "manifest.json").write_text(json.dumps({"name": "other", "address": "0"}))
    with pytest.raises(RecipeError, match="recipe 'other'"):
        refuse_foreign(folder, "small")


def test_exit_codes_and_streams(make_pool: Callable[..., Path]) -> None:
    recipe = make_pool()
    command = [str(Path(sys.executable).with_name("cuvee"))]
    good = subprocess.run([*command, "check", str(recipe), "--json"], capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["shards"] == 5
    bad = subprocess.run([*command, "check", str(recipe.parent / "none.yaml")], capture_output=True, text=True)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "none.yaml" in bad.stderr


def test_a_target_without_captions_is_named(make_pool: Callable[..., Path], ray_cluster: object) -> None:
    from pipeline.cluster import Cluster
    from pipeline.run import run
    from schemas.errors import CuveeError

    recipe = make_pool(extra="select: [{kind: dsir, target: target, samples: 3}]\n")
    bare = [{name: part for name, part in sample(number).items() if name != "txt"} for number in range(4)]
    write_tar(recipe.parent / "target" / "00000.tar", bare)
    with (
        Cluster(workers=2) as cluster,
        pytest.raises(CuveeError, match="target has no usable sample: 4 missing_caption"),
    ):
        run(resolve(recipe), cluster)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from pipeline.sidecars import replacing; from schemas.errors import CuveeError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with replacing(Path(sys.argv[1])) as temporary: temporary.write_bytes(bytes(5000))\n"
        "except CuveeError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], capture_output=True, text=True)
    assert "could not write" in ran.stdout, ran.stderr
    assert "run again" in ran.stdout
    assert list(tmp_path.iterdir()) == []
