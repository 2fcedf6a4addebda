"""The TrainJob of a profile with several nodes, its pods, and the step that makes it."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kfp import compiler

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.training.launch.train_job import Owner, _complete
from pipelines.parameters import Variant
from pipelines.resources import CA_FOLDER, GPU, OWN_STORE_SECRETS, Profile, load_profile
from pipelines.stage1 import stage1
from pipelines.train_job import shown_train_jobs, train_job
from tests.manifests.conftest import MANIFESTS
from tests.pipelines.train_job_model import pod_of, problems

RUNTIME = yaml.safe_load((MANIFESTS / "components/multi-node/runtime.yaml").read_text())
PROFILE = """
training:
  gpus: 2
  n_nodes: 4
  nccl: {NCCL_SOCKET_IFNAME: eth0, NCCL_DEBUG: WARN}
  node_labels: {nvidia.com/gpu.product: NVIDIA-RTX-A6000}
  tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
  cpu_request: 16
  cpu_limit: 16
  memory_request: 96Gi
  memory_limit: 96Gi
  shared_memory: 16Gi
  scratch: 100Gi
  timeout_seconds: 86400
secrets: {image_pull: [registry]}
queue: team
"""


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """Four nodes of two GPUs, in a queue, with a store for each role."""
    file = tmp_path / "four.yaml"
    file.write_text(PROFILE)
    return load_profile(str(file), own_store=True)


@pytest.fixture
def job(profile: Profile) -> dict[str, Any]:
    """As the step creates it."""
    made = train_job(profile, step="train-baseline", image="registry/trainer@sha256:0")
    command = ["python", "-m", "components.shared.training.session.node"]
    return _complete(made, "streetvision-0123456789abcdef", command, Owner("pod", "uid"))


@pytest.fixture
def pod(job: dict[str, Any]) -> dict[str, Any]:
    """Of node 3."""
    return pod_of(job, RUNTIME, 3)


def test_kubeflow_trainers_schemas_accept_the_job_and_its_runtime(job: dict[str, Any]) -> None:
    assert problems(job) == []
    assert problems(RUNTIME) == []
    assert job["spec"]["trainer"]["numNodes"] == 4
    assert job["spec"]["activeDeadlineSeconds"] == 86400
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert job["metadata"]["ownerReferences"][0]["uid"] == "uid"


def test_a_field_that_kubeflow_trainer_does_not_have_is_refused(job: dict[str, Any]) -> None:
    spec, runtime = job["spec"], copy.deepcopy(RUNTIME)
    (patch,) = spec["runtimePatches"]
    # As releases before 2.2 name it.
    spec["podTemplateOverrides"] = [patch["trainingRuntimeSpec"]]
    spec["trainer"]["numNodes"] = "4"
    runtime["spec"]["template"]["spec"]["failurePolicy"]["maxRestart"] = 0
    assert sorted(problems(job)) == [
        "$.spec.trainer.numNodes: '4' is not of type 'integer'",
        "$.spec: Additional properties are not allowed ('podTemplateOverrides' was unexpected)",
    ]
    assert len(problems(runtime)) == 1


def test_the_api_accepts_its_pods(pod: dict[str, Any]) -> None:
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_what_the_profile_says_reaches_the_pods(pod: dict[str, Any]) -> None:
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "16", "memory": "96Gi", GPU: "2"}
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-RTX-A6000"}
    assert spec["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounts["/dev/shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert mounts["/tmp"]["emptyDir"] == {"sizeLimit": "100Gi"}
    assert mounts[CA_FOLDER]["configMap"]["optional"] is True
    values = {item["name"]: item.get("value") for item in container["env"]}
    assert (values["NCCL_SOCKET_IFNAME"], values["NCCL_DEBUG"]) == ("eth0", "WARN")
    assert values["PET_MASTER_ADDR"].startswith("streetvision-0123456789abcdef-node-0-0.")


def test_the_pods_have_the_credentials_of_checkpoints_by_reference_and_no_other(
    pod: dict[str, Any],
) -> None:
    (container,) = pod["spec"]["containers"]
    secrets = {
        item["valueFrom"]["secretKeyRef"]["name"]
        for item in container["env"]
        if "secretKeyRef" in item.get("valueFrom", {})
    }
    assert secrets == {OWN_STORE_SECRETS["checkpoints"]}


def test_the_pods_meet_the_restricted_level_and_may_nothing(pod: dict[str, Any]) -> None:
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert spec["restartPolicy"] == "Never"
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    (replicated,) = RUNTIME["spec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["template"]["spec"]["backoffLimit"] == 0
    assert RUNTIME["spec"]["template"]["spec"]["failurePolicy"] == {"maxRestarts": 0}


def test_network_policies_find_the_pods(pod: dict[str, Any]) -> None:
    (policy,) = yaml.safe_load_all((MANIFESTS / "components/multi-node/network.yaml").read_text())
    labels = pod["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert labels["app.kubernetes.io/component"] == "train-baseline"


def test_only_trainings_start_nodes_and_their_steps_ask_for_no_gpu(
    profile: Profile, tmp_path: Path
) -> None:
    spec, platform = _compiled(profile, tmp_path)
    executors = spec["deploymentSpec"]["executors"]
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    starting = set()
    for name, executor in executors.items():
        variables = {item["name"]: item["value"] for item in executor["container"].get("env", [])}
        if Variable.TRAIN_JOB not in variables:
            continue
        starting.add(name)
        job = json.loads(variables[Variable.TRAIN_JOB])
        assert job["spec"]["trainer"]["image"] == executor["container"]["image"]
        assert "{{" not in variables[Variable.TRAIN_JOB]  # Argo's and KFP's placeholders
        assert "$(" not in variables[Variable.TRAIN_JOB]  # Kubernetes'
        assert "accelerator" not in executor["container"]["resources"]
        fields = {item["name"]: item["fieldPath"] for item in settings[name]["fieldPathAsEnv"]}
        assert fields == {
            Variable.POD_NAME: "metadata.name",
            Variable.POD_UID: "metadata.uid",
        }
        assert "nodeSelector" not in settings[name]
    assert starting == {"exec-train-baseline", "exec-pretrain-explora"}


def test_the_number_of_nodes_is_in_no_cache_key(profile: Profile, tmp_path: Path) -> None:
    one = dataclasses.replace(
        profile, training=dataclasses.replace(profile.training, n_nodes=1, nccl={})
    )
    several, alone = (_compiled(chosen, tmp_path)[0] for chosen in (profile, one))
    for name, executor in several["deploymentSpec"]["executors"].items():
        container, other = executor["container"], alone["deploymentSpec"]["executors"][name]
        for part in ("image", "command", "args"):
            assert container.get(part) == other["container"].get(part)


def test_the_objects_can_be_looked_at_before_a_run(profile: Profile) -> None:
    jobs = shown_train_jobs(profile, Variant(pretrain="unlabelled", modes=("full", "lora")))
    assert [job["metadata"]["name"] for job in jobs] == [
        "streetvision-train-full",
        "streetvision-train-lora",
        "streetvision-pretrain-explora",
    ]
    for job in jobs:
        assert problems(job) == []
    with pytest.raises(ConfigError, match="profile cpu trains on one node, without a TrainJob"):
        shown_train_jobs(load_profile("cpu"), Variant())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_nodes: 0", "n_nodes=0 must be >= 1"),
        ("nccl: {PATH: x}", r"nccl has ['PATH']: names must begin with NCCL_"),
    ],
)
def test_a_wrong_field_of_a_profile_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(f"training: {{{text}}}\n")
    with pytest.raises(ConfigError) as caught:
        load_profile(str(file))
    assert message in str(caught.value)


def _compiled(profile: Profile, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    file = tmp_path / "stage1.yaml"
    compiler.Compiler().compile(stage1(profile, Variant(pretrain="unlabelled")), str(file))
    spec, platform = yaml.safe_load_all(file.read_text())
    return spec, platform
