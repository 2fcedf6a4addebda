"""Checks of the runs' namespace: labels, service account, rights, secrets, store settings."""

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from pipelines.doctor.findings import Check, Passed, missing
from pipelines.doctor.target import RUNNER, Target
from pipelines.doctor.training_nodes import training_nodes
from pipelines.kubeflow.launcher import (
    CONFIG_MAP,
    KFP_SECRET,
    LauncherStore,
    launcher_store,
    service_of,
)
from pipelines.kubeflow.reader import ClusterReader
from pipelines.resources import OWN_STORE_SECRETS, STORE_CONFIG, TEAM_SECRET

PROFILE_LABEL = ("app.kubernetes.io/part-of", "kubeflow-profile")
_PROFILE_LABELS = (PROFILE_LABEL, ("pipelines.kubeflow.org/enabled", "true"))
_SECURITY_LEVEL = "pod-security.kubernetes.io/enforce"
_API_SERVICE = "ml-pipeline"  # drivers ask this Service of KFP's namespace
# What KFP's driver and launcher and Argo's executor ask of the Kubernetes API as the steps' service
# account.
_RIGHTS = (
    ("get", "", "configmaps", CONFIG_MAP),
    ("get", "", "pods", ""),
    ("create", "argoproj.io", "workflowtaskresults", ""),
    ("patch", "argoproj.io", "workflowtaskresults", ""),
)


def namespace_checks(reader: ClusterReader, target: Target) -> dict[str, Check]:
    """Return the checks by name, in the order in which they are shown."""
    several = target.profile.training.n_nodes > 1
    return {
        "service account": lambda: service_account(reader, target),
        "rights": lambda: rights(reader, target),
        "store secret": lambda: store_secret(reader, target),
        "store settings": lambda: store_settings(reader, target),
        "hub token": lambda: hub_token(reader, target),
        "image pull secrets": lambda: image_pull_secrets(reader, target),
    } | ({"training nodes": lambda: training_nodes(reader, target)} if several else {})


def namespace(reader: ClusterReader, target: Target) -> Passed:
    """The namespace exists and is the one in which KFP starts the pods of a run."""
    name = target.namespace
    labels = reader.labels(name)
    if labels is None:
        if target.multi_user:
            raise missing(
                f"{name} does not exist",
                f"have an admin create the Profile {name}, then {target.apply}",
            )
        raise missing(
            f"{name} does not exist", "give --namespace, that of KFP itself (mostly kubeflow)"
        )

    enforced = labels.get(_SECURITY_LEVEL)
    level = (
        f"Pod Security {enforced}, which the steps' pods meet"
        if enforced
        else "no Pod Security level"
    )

    if target.multi_user:
        wrong = [f"{key}={value}" for key, value in _PROFILE_LABELS if labels.get(key) != value]
        if wrong:
            raise missing(
                f"{name} has no label {' and no label '.join(wrong)}, by which KFP's network"
                " policies and its profile controller know a Profile's namespace",
                f"have an admin run: kubectl label namespace {name} --overwrite {' '.join(wrong)}",
            )
        return Passed(f"{name}, a Profile's; {level}")

    if reader.service(_API_SERVICE) is None:
        raise missing(
            f"{name} is not KFP's own, having no Service {_API_SERVICE}; single-user KFP starts all"
            " pods in its own",
            "give --namespace, that of KFP itself (mostly kubeflow)",
        )

    return Passed(f"{name}, KFP's own; {level}")


def service_account(reader: ClusterReader, target: Target) -> Passed:
    """The account of the steps' pods exists.

    Without it Argo makes no pod, and the run fails within seconds.
    """
    if not reader.has_service_account(RUNNER):
        raise missing(f"{RUNNER} is not there: no pod of a run would be made", target.apply_runner)
    return Passed(RUNNER)


def rights(reader: ClusterReader, target: Target) -> Passed:
    """The account may do what KFP and Argo do in its name."""
    wanted = list(_RIGHTS)
    launcher = _launcher_if_valid(reader)
    if launcher is not None and launcher.secret:
        wanted.append(("get", "", "secrets", launcher.secret))

    refused = []
    for verb, group, resource, name in wanted:
        if not reader.may(RUNNER, verb, group, resource, name):
            refused.append(f"{verb} {resource}" + (f" {name}" if name else ""))

    if refused:
        raise missing(f"{RUNNER} may not {', '.join(refused)}", target.apply_runner)

    return Passed(f"{RUNNER} may do what KFP's driver, launcher and Argo's executor need")


def store_secret(reader: ClusterReader, target: Target) -> Passed:
    """The Secrets with the credentials of the steps have both keys, and values of their own."""
    secrets = target.profile.secrets
    keys = (secrets.store_access_key, secrets.store_secret_key)
    for name in secrets.of_steps():
        values = reader.secret(name)
        if values is None:
            raise missing(
                f"{name} is not there: no step that needs it reaches the object store",
                _secret_advice(reader, target),
            )
        if absent := [key for key in keys if not values.get(key)]:
            raise missing(
                f"{name} has no {' and no '.join(absent)}",
                "complete the Secret, or name its keys in the profile (secrets.store_access_key,"
                " secrets.store_secret_key)",
            )

    for name in (*secrets.of_steps(), TEAM_SECRET):
        _refuse_example(reader, target, name)

    return Passed(f"{', '.join(secrets.of_steps())} with {' and '.join(keys)}")


def store_settings(reader: ClusterReader, target: Target) -> Passed:
    """The ConfigMap that tells the steps where the object store is agrees with the launcher's."""
    found = reader.config_map(STORE_CONFIG)
    endpoint = found.data.get(Variable.S3_ENDPOINT) if found else None
    if found is None or not endpoint:
        what = (
            f"{STORE_CONFIG} is not there"
            if found is None
            else f"{STORE_CONFIG} has no {Variable.S3_ENDPOINT}"
        )
        raise missing(f"{what}: steps cannot read s3:// data", target.apply_store)

    launcher = _launcher_if_valid(reader)
    if launcher is not None:
        _compare_with_launcher(endpoint, launcher, target)
    if not found.data.get(Variable.CHECKPOINT_STORE):
        return Passed(
            f"{endpoint}; {Variable.CHECKPOINT_STORE} is not set, so a lost pod starts its training"
            " anew",
            f"set it in {STORE_CONFIG}, for example to s3://streetvision/checkpoints",
        )

    return Passed(f"{endpoint}, checkpoints in {found.data[Variable.CHECKPOINT_STORE]}")


def hub_token(reader: ClusterReader, target: Target) -> Passed:
    """The Hugging Face Hub's token is optional; a Secret without its key is not."""
    name = target.profile.secrets.hub
    values = reader.secret(name)
    if values is None:
        return Passed(f"{name} is not there; only gated backbones of the hub need it")
    if not values.get(Variable.HUB_TOKEN):
        raise missing(
            f"{name} has no {Variable.HUB_TOKEN}",
            f"add it, or delete the Secret: kubectl delete secret {name}",
        )

    return Passed(f"{name} with {Variable.HUB_TOKEN}")


def image_pull_secrets(reader: ClusterReader, target: Target) -> Passed:
    """The profile's Secrets of private registries are there."""
    wanted = target.profile.secrets.image_pull
    absent = [name for name in wanted if reader.secret(name) is None]
    if absent:
        raise missing(
            f"{', '.join(absent)} not there: no step's image can be pulled",
            f"kubectl create secret docker-registry {absent[0]} --namespace {target.namespace}"
            " --docker-server ... --docker-username ... --docker-password ...",
        )

    return Passed(", ".join(wanted) or "the profile names none")


def resolved_launcher(reader: ClusterReader) -> LauncherStore:
    """Where KFP's launcher keeps the artifacts of runs.

    `submit` gives a run the root of STORE_CONFIG, if any.
    """
    found, ours = reader.config_map(CONFIG_MAP), reader.config_map(STORE_CONFIG)
    data = dict(found.data) if found else {}
    if root := (ours.data.get(Variable.PIPELINE_ROOT) if ours else ""):
        data["defaultPipelineRoot"] = root
    return launcher_store(data)


def _launcher_if_valid(reader: ClusterReader) -> LauncherStore | None:
    """Return None if the launcher would refuse its settings.

    The check of the pipeline root reports the refusal.
    """
    try:
        return resolved_launcher(reader)
    except ConfigError:
        return None


def _compare_with_launcher(endpoint: str, launcher: LauncherStore, target: Target) -> None:
    """What the steps and KFP's launcher are told must agree."""
    used = target.profile.secrets.of("runs")
    same_store = service_of(endpoint, target.namespace) == service_of(
        launcher.endpoint, target.namespace
    )
    if same_store and launcher.secret not in ("", used):
        own = launcher.secret == OWN_STORE_SECRETS["runs"]
        option = "--own-store" if own else f"--store-secret {launcher.secret}"
        raise missing(
            f"KFP's launcher opens {endpoint} with Secret {launcher.secret}, the steps with {used}",
            f"compile with {option}",
        )


def _refuse_example(reader: ClusterReader, target: Target, name: str) -> None:
    """Raise CheckError where a Secret still has what the examples of manifests/ have."""
    example = [key for key, value in (reader.secret(name) or {}).items() if _is_example(value)]
    if example:
        raise missing(
            f"{name} still has the example's {' and '.join(sorted(example))}, known to everybody",
            "set your own in manifests/base/credentials, here and at the store, then"
            f" {target.apply_store}",
        )


def _is_example(value: str) -> bool:
    return value == "change" or value.startswith("change-me")


def _secret_advice(reader: ClusterReader, target: Target) -> str:
    if target.profile.secrets.runs == OWN_STORE_SECRETS["runs"]:
        return f"{target.apply_store}, with the component minio or external-s3, which makes it"
    if reader.secret(OWN_STORE_SECRETS["runs"]) is not None:
        return f"{OWN_STORE_SECRETS['runs']} is there: compile with --own-store"
    if target.profile.secrets.store != KFP_SECRET:
        return "create it, or correct --store-secret"
    if target.multi_user:
        return (
            "KFP's profile controller makes it where the namespace has the label"
            " pipelines.kubeflow.org/enabled=true; with a store of your own compile with"
            " --own-store"
        )
    return "it is KFP's own; with another store compile with --own-store or --store-secret"
