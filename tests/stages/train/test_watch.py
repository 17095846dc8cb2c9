import json

import numpy as np

from stages.train.watch import KEPT, NAMED, WINDOW, Watch

SAMPLES = [{"source": "web", "key": f"k{n}", "shard": "a.tar"} for n in range(20)]


def calm(watch: Watch, steps: int, seed: int = 0) -> None:
    noise = np.random.default_rng(seed)
    for step in range(steps):
        watch.see(step, 2 + 0.1 * float(noise.uniform(-1, 1)), lambda: SAMPLES, np.ones(20))


def test_a_loss_that_jumps_is_named_with_its_samples_and_shards() -> None:
    watch = Watch()
    calm(watch, 200)
    assert watch.spiked == 0, "within 7 median deviations nothing jumps"
    each = np.linspace(1, 9, 20)
    watch.see(200, 3.0, lambda: SAMPLES, each)
    (spike,) = watch.spikes
    assert spike["step"] == 200 and spike["loss"] == 3.0 and abs(spike["median"] - 2) < 0.05
    assert [sample["key"] for sample in spike["samples"]] == [f"k{19 - n}" for n in range(NAMED)]
    assert spike["samples"][0] == {"source": "web", "key": "k19", "shard": "a.tar", "loss": 9.0}


def test_a_fall_is_no_spike_and_nothing_is_judged_before_the_window_is_full() -> None:
    watch = Watch()
    calm(watch, WINDOW - 1)
    watch.see(63, 99.0, lambda: SAMPLES, np.ones(20))
    assert watch.spiked == 0
    watch.see(64, 0.1, lambda: SAMPLES, np.ones(20))
    assert watch.spiked == 0 and len(watch.losses) == WINDOW


def test_two_surprises_in_a_row_are_an_alarm() -> None:
    watch = Watch()
    for step, rms in enumerate([0.9, 2.5, 1.0, 2.4, 2.6, 3.0]):
        watch.surprise(step, {"first": rms, "second": 1.0})
    assert [(alarm["step"], alarm["tensor"]) for alarm in watch.alarms] == [(4, "first"), (5, "first")]
    assert watch.facts["highest_rms"] == {"first": 3.0, "second": 1.0} and watch.facts["rms_alarms"] == 2


def test_it_goes_on_from_its_state_and_stays_small() -> None:
    whole, first = Watch(), Watch()
    calm(whole, 70)
    calm(first, 70)
    second = Watch(**json.loads(json.dumps(vars(first))))
    for watch in (whole, second):
        for step in range(150):
            watch.see(70 + step, 5.0 if step % 3 == 0 else 2.0, lambda: SAMPLES, np.ones(20))
            watch.surprise(step, {"a": 3.0})
    assert vars(whole) == vars(second)
    assert len(whole.alarms) == KEPT and whole.alarmed == 149
