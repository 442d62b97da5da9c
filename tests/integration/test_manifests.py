"""Manifests and compose file: that they parse, name known fields, and that what they run are commands of ours."""

import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest
import yaml

from tests.integration.ray_nodes import ROOT

# Fields of KubeRay's ray.io/v1 that are used here, as in its API reference.
JOB = {
    "entrypoint", "entrypointNumCpus", "entrypointNumGpus", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
    "backoffLimit", "activeDeadlineSeconds", "rayClusterSpec",
}  # fmt: skip
CLUSTER = {
    "rayVersion",
    "authOptions",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "headGroupSpec",
    "workerGroupSpecs",
}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
MANIFESTS = sorted((ROOT / "docker" / "kuberay").glob("*.yaml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_ray_job(path):
    manifest = yaml.safe_load(path.read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    job, cluster = manifest["spec"], manifest["spec"]["rayClusterSpec"]
    assert job.keys() <= JOB and cluster.keys() <= CLUSTER
    assert cluster["rayVersion"] == version("ray") and cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        assert group.keys() == GROUP and group["minReplicas"] == 0 < group["maxReplicas"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_its_entrypoint_is_a_command_with_these_options(path, tmp_path):
    words = shlex.split(yaml.safe_load(path.read_text())["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "jobs.cli"]
    here = [word.replace("/data", str(tmp_path)) for word in words[3:]]
    ended = subprocess.run([sys.executable, "-m", "jobs.cli", *here], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 1 and "not a workspace" in ended.stderr  # its options were understood


def test_compose_keeps_to_its_own_network():
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    assert services.keys() == {"head", "worker", "job", "store"}
    assert not any("ports" in service for service in services.values())
    assert all(service["networks"] == ["cluster"] for service in services.values())
    nodes = [service for name, service in services.items() if name != "store"]
    assert all("RAY_AUTH_TOKEN" in service["environment"] for service in nodes)
