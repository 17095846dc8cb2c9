from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from schemas.errors import CuveeError
from stages.train.batches import Batches
from stages.train.bridge import Bridge
from stages.train.comparison import Comparison
from stages.train.layout import lay_out
from stages.train.loop import train
from stages.train.settings import TrainSettings
from stages.train.workbench import Workbench

Settings = Callable[..., TrainSettings]


class Killed(Exception):
    pass


@pytest.fixture
def bench(settings: Settings, write_shard: Callable[..., str], held_out: pa.Table, tmp_path: Path) -> Workbench:
    arms = {"raw": [write_shard("raw", range(10))], "other": [write_shard("other", range(5, 15))]}
    comparison = Comparison(settings(), arms, tmp_path / "run", tmp_path / "features", seed=7)
    comparison.read(held_out)
    return Workbench(comparison)


def weights(module: object) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in module.state_dict().items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("killed_after", [1, 2, 3, 5, 6])
def test_a_killed_run_continues_bit_for_bit(
    bench: Workbench, settings: Settings, tmp_path: Path, killed_after: int
) -> None:
    made = settings(budget={"steps": 7}, weight_decay=0.01)
    whole_losses, losses = {}, {}
    whole = train(made, bench.frozen, bench.corpora["raw"], "7/0", on_step=whole_losses.__setitem__)

    def kill(step: int, loss: float) -> None:
        losses[step] = loss
        if step == killed_after:
            raise Killed

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        train(made, bench.frozen, bench.corpora["raw"], "7/0", checkpoint=checkpoint, on_step=kill)
    assert checkpoint.exists() == (killed_after >= 2)
    seen = []
    resumed = train(
        made, bench.frozen, bench.corpora["raw"], "7/0", checkpoint=checkpoint,
        on_step=lambda step, loss: (seen.append(step), losses.__setitem__(step, loss)),
    )  # fmt: skip
    assert seen[0] == killed_after // 2 * 2 + 1, "it went on from the last checkpoint, not from the start"
    assert losses == whole_losses and resumed.curve == whole.curve
    assert all(np.array_equal(value, weights(whole.bridge)[name]) for name, value in weights(resumed.bridge).items())
    assert not checkpoint.exists()


def test_a_checkpoint_of_another_run_is_refused(bench: Workbench, settings: Settings, tmp_path: Path) -> None:
    def kill(step: int, loss: float) -> None:
        if step == 2:
            raise Killed

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        train(settings(), bench.frozen, bench.corpora["raw"], "7/0", checkpoint=checkpoint, on_step=kill)
    for changed, corpus, seed, found in (
        ({}, "other", "7/0", "data ="),
        ({}, "raw", "7/1", "init_seed ="),
        ({"learning_rate": 1e-3}, "raw", "7/0", "schedule ="),
        ({"vision_model": "other", "vision_pretrained": "tag"}, "raw", "7/0", "vision ="),
    ):
        with pytest.raises(CuveeError, match=found):
            train(settings(**changed), bench.frozen, bench.corpora[corpus], seed, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:200])
    with pytest.raises(CuveeError, match="damaged"):
        train(settings(), bench.frozen, bench.corpora["raw"], "7/0", checkpoint=checkpoint)


def test_only_the_connector_learns(bench: Workbench, settings: Settings) -> None:
    frozen_before = {name: value.clone() for name, value in bench.frozen.language.model.state_dict().items()}
    made = settings(budget={"steps": 30}, batch=10, learning_rate=3e-2)
    trained = train(made, bench.frozen, bench.corpora["raw"], "7/0")
    after = bench.frozen.language.model.state_dict()
    assert all((after[name] == value).all() for name, value in frozen_before.items())
    assert all(parameter.grad is None for parameter in bench.frozen.language.model.parameters())
    assert not bench.frozen.language.model.training
    assert trained.curve[-1][1] < trained.curve[0][1] - 0.05
    assert [step for step, _ in trained.curve] == list(range(1, 31))


def test_the_loss_is_the_mean_over_label_tokens(bench: Workbench, settings: Settings) -> None:
    """Against transformers' own loss, sample by sample, without padding."""
    import torch

    language, corpus = bench.frozen.language, bench.corpora["raw"]
    bridge = train(settings(budget={"steps": 1}), bench.frozen, corpus, "7/0").bridge
    ids = [int(corpus.whole.argmax()), int(corpus.whole.argmin()), 7]
    assert corpus.whole[ids].tolist()[:2] == [True, False]
    drawn = [("only", i) for i in ids]
    with torch.no_grad():
        visual = bridge.connector(bench.frozen.embeddings([corpus.images[i] for i in ids]))
        mine = Batches(bench.frozen, {"only": corpus}).losses(bridge, drawn)
        for row, i in enumerate(ids):
            end = [language.eos] if corpus.whole[i] else []
            text = torch.tensor([[language.bos, *corpus.caption(i), *end]])
            embedded = torch.cat([visual[row : row + 1], language.model.get_input_embeddings()(text)], dim=1)
            wanted = torch.cat([torch.full((1, visual.shape[1] + 1), -100), text[:, 1:]], dim=1)
            loss = language.model(inputs_embeds=embedded, labels=wanted).loss
            assert float(mine.values[mine.samples == row].mean()) == pytest.approx(float(loss), rel=1e-5)
    assert len(mine) == sum(len(corpus.caption(i)) + corpus.whole[i] for i in ids)


def test_a_model_without_a_begin_token_predicts_from_the_last_visual_token(bench: Workbench) -> None:
    import dataclasses

    import torch

    language = dataclasses.replace(bench.frozen.language, bos=None, templates=())
    visual = torch.randn(2, 4, language.width, generator=torch.Generator().manual_seed(0))
    bridge, said = Bridge(torch.nn.Identity()), [language.said([5, 6, 7], True, 0), language.said([8], False, 1)]
    layout = lay_out(said, 4)
    with torch.no_grad():
        mine = language.label_logits(layout, bridge.show(visual), bridge).log_softmax(dim=-1)
        embedded = torch.cat([visual[:1], language.model.get_input_embeddings()(torch.tensor([[5, 6, 7]]))], dim=1)
        spoken = torch.log_softmax(language.model(inputs_embeds=embedded).logits[0, 3:], dim=-1)
    wanted = [-float(spoken[place, token]) for place, token in enumerate([5, 6, 7, language.eos])]
    found = [-float(row[label]) for row, label in zip(mine, layout.labels, strict=True)]
    assert found[:4] == pytest.approx(wanted, rel=1e-5) and layout.samples.tolist() == [0, 0, 0, 0, 1]
