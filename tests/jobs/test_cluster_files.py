"""The cluster file is what Ray's own launcher accepts; the Kubernetes files name jobs that exist."""

import importlib.util
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_ray_up_accepts_the_cluster_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    validate_config(prepare_config(config))
    broken = {**config, "max_wrokers": 3}
    with pytest.raises(Exception, match="max_wrokers"):
        validate_config(prepare_config(broken))


@pytest.mark.parametrize("name", ["curate", "recurate"])
def test_the_kubernetes_files_run_jobs_that_exist(name: str) -> None:
    job = yaml.safe_load((ROOT / "jobs" / "kuberay" / f"{name}.yaml").read_text())
    spec = job["spec"] if job["kind"] == "RayJob" else job["spec"]["jobTemplate"]
    module = spec["entrypoint"].split()[2]
    assert importlib.util.find_spec(module) is not None
    constraint = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ray=="))
    assert spec["rayClusterSpec"]["rayVersion"] == constraint.removeprefix("ray==")
