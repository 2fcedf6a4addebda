"""All environment variables that the project reads or sets: name, meaning, reader and default.

Every other module takes a name from here, and docs/reference/environment.md is rendered from this
table. Each member is the variable's name, so that `os.environ.get(Variable.CHECKPOINTS)` works.
Variables that mean the same to every program (PATH, HOME, USER, CC) are not listed.
"""

from enum import StrEnum
from typing import Self


class Variable(StrEnum):
    """Name of an environment variable, with what it means.

    `meaning`: one sentence; `reader`: who reads it; `default`: what holds where it is not set.
    """

    meaning: str
    reader: str
    default: str

    def __new__(cls, name: str, meaning: str, reader: str, default: str) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning, member.reader, member.default = meaning, reader, default
        return member

    # The object store.
    S3_ENDPOINT = (
        "STREETVISION_S3_ENDPOINT",
        "Address of the object store as host or host:port, without scheme and path.",
        "steps that use the store; commands that read or upload objects",
        "none; required where the store is used",
    )
    S3_ACCESS_KEY = (
        "STREETVISION_S3_ACCESS_KEY",
        "Access key of the object store.",
        "steps that use the store; commands that read or upload objects",
        "none; required where the store is used",
    )
    S3_SECRET_KEY = (
        "STREETVISION_S3_SECRET_KEY",
        "Secret key of the object store; it is never part of a message.",
        "steps that use the store; commands that read or upload objects",
        "none; required where the store is used",
    )
    S3_SESSION_TOKEN = (
        "STREETVISION_S3_SESSION_TOKEN",
        "Session token that belongs to temporary credentials.",
        "steps that use the store; commands that read or upload objects",
        "no token",
    )
    S3_REGION = (
        "STREETVISION_S3_REGION",
        "Region that requests are signed for.",
        "steps that use the store; commands that read or upload objects",
        "us-east-1",
    )
    S3_SECURE = (
        "STREETVISION_S3_SECURE",
        "Whether the object store is reached over TLS: true or false.",
        "steps that use the store; commands that read or upload objects",
        "true",
    )
    S3_CA_FILE = (
        "STREETVISION_S3_CA_FILE",
        "PEM file with the authorities that the store's certificate is checked against.",
        "steps that use the store; commands that read or upload objects",
        "the authorities of certifi",
    )
    S3_SECRET_DIR = (
        "STREETVISION_S3_SECRET_DIR",
        "Folder of a mounted Secret, whose files stand in for variables above that are not set.",
        "steps that use the store; commands that read or upload objects",
        "no folder",
    )

    # Every step.
    STATUS = (
        "STREETVISION_STATUS",
        "File in which a step reports how it ended; set by local runs, for each step.",
        "every step",
        "status.json beside the step's first output",
    )

    # The split.
    LINEAGES = (
        "STREETVISION_LINEAGES",
        "Folder or s3://bucket/prefix in which the splits of lineages are recorded.",
        "the first step, and the step that splits",
        "splits are not recorded; local runs: .lineages in the folder of the runs",
    )

    # The registry.
    BUNDLE_REGISTRY = (
        "STREETVISION_BUNDLE_REGISTRY",
        "Registry of bundles and of decisions on the champion, s3://bucket/prefix.",
        "the step that promotes; commands that read or change the registry",
        "none; commands take --bundle-registry",
    )

    # Signatures of bundles.
    SIGNING_KEY = (
        "STREETVISION_SIGNING_KEY",
        "PEM file with the private key that signs bundles and, where a certificate vouches for it,"
        " the certificate and its chain.",
        "the step that exports, and the command that signs",
        "bundles are not signed",
    )
    TRUSTED_KEYS = (
        "STREETVISION_TRUSTED_KEYS",
        "PEM file with public keys and certificates of authorities, one of which must have signed"
        " every bundle that is exported or opened.",
        "the first step, and the steps and commands that export or open a bundle",
        "signatures are not checked",
    )

    WEBHOOK_SECRET = (
        "STREETVISION_WEBHOOK_SECRET",
        "Secret that signs the request to on_promotion: whsec_..., or a text of at least 16 bytes.",
        "the step that promotes; commands that promote",
        "none; required where on_promotion is set",
    )
    RUN = (
        "STREETVISION_RUN",
        "Name of the run, which a bundle's provenance and the records of decisions carry.",
        "the steps that export and promote",
        "records name no run",
    )
    GIT_COMMIT = (
        "STREETVISION_GIT_COMMIT",
        "Commit of the code, which a bundle's provenance and the records of decisions carry.",
        "the steps that export and promote",
        "none is named; there is the digest of the sources. Local runs: the one checked out",
    )
    IMAGE = (
        "STREETVISION_IMAGE",
        "Image of the step, which a bundle's provenance carries; set by the compiled pipeline.",
        "the step that exports",
        "the provenance names none",
    )
    IMAGES = (
        "STREETVISION_IMAGES",
        "Pushed images of all phases, a JSON object, which a bundle's provenance carries; set by"
        " the compiled pipeline.",
        "the step that exports",
        "the provenance names the export's image alone",
    )

    # Computation.
    DEVICE = (
        "STREETVISION_DEVICE",
        "Where models compute: cpu, cuda, or auto.",
        "steps that train or predict, and the predictor of a bundle",
        "auto: the GPUs where PyTorch finds any, else the CPU",
    )

    ALLOCATOR = (
        "PYTORCH_ALLOC_CONF",
        "How PyTorch divides a GPU's memory; set by the step where it is not set.",
        "PyTorch",
        "in ranks: expandable_segments:True",
    )
    CUDA_ALLOCATOR = (
        "PYTORCH_CUDA_ALLOC_CONF",
        "The older name of PYTORCH_ALLOC_CONF.",
        "PyTorch",
        "not set",
    )
    CUBLAS_WORKSPACE = (
        "CUBLAS_WORKSPACE_CONFIG",
        "Buffers of cuBLAS; of fixed size, its sums have one order.",
        "cuBLAS",
        "in ranks with deterministic=true: :4096:8",
    )
    FLASH_DETERMINISTIC = (
        "FLASH_ATTENTION_DETERMINISTIC",
        "Whether flash-attn adds gradients in one order.",
        "transformers, with attention=flash",
        "in ranks with deterministic=true: 1",
    )
    COMPILED = (
        "TORCHINDUCTOR_CACHE_DIR",
        "Folder of compiled kernels.",
        "PyTorch, with compile=default or max-autotune",
        "in trainings: compiled, beside the checkpoints",
    )

    # Training.
    CHECKPOINTS = (
        "STREETVISION_CHECKPOINTS",
        "Folder for the checkpoints of all trainings, and for the images that ingest has checked.",
        "training steps, and the step that reads the images",
        ".checkpoints beside the step's first output",
    )
    CHECKPOINT_STORE = (
        "STREETVISION_CHECKPOINT_STORE",
        "s3://bucket/prefix to which checkpoints and checked images are uploaded, so that they"
        " outlive the machine.",
        "training steps, and the step that reads the images",
        "checkpoints stay on the machine",
    )
    HEARTBEAT = (
        "STREETVISION_HEARTBEAT",
        "File in which the ranks record signs of life; set by the step.",
        "ranks of torchrun",
        "no record",
    )
    PARENT = (
        "STREETVISION_PARENT",
        "Process that this one must not outlive; set by the local run, the step and torchrun.",
        "local steps, torchrun and its ranks",
        "the parent process",
    )
    TRAIN_JOB = (
        "STREETVISION_TRAIN_JOB",
        "TrainJob of Kubeflow Trainer, as JSON without a name, that runs the training's processes.",
        "training steps; set by the compiled pipeline where the profile has n_nodes > 1",
        "torchrun runs in the step's pod",
    )
    POD_NAME = (
        "STREETVISION_POD_NAME",
        "Name of the step's pod, the owner of its TrainJob; set with the TrainJob.",
        "training steps",
        "none; set where it is read",
    )
    POD_UID = (
        "STREETVISION_POD_UID",
        "Identifier of the step's pod; set with the TrainJob.",
        "training steps",
        "none; set where it is read",
    )
    TERMINATION_LOG = (
        "STREETVISION_TERMINATION_LOG",
        "File whose content Kubernetes shows as a container's termination message.",
        "nodes of a TrainJob",
        "/dev/termination-log",
    )
    NODE_RANK = (
        "PET_NODE_RANK",
        "Number of a node of a TrainJob; set by Kubeflow Trainer.",
        "nodes of a TrainJob",
        "none; always set",
    )
    NODE_COUNT = (
        "PET_NNODES",
        "Number of nodes of a TrainJob; set by Kubeflow Trainer.",
        "nodes of a TrainJob",
        "none; always set",
    )
    MASTER_ADDRESS = (
        "PET_MASTER_ADDR",
        "Name of the first node of a TrainJob in the cluster's DNS; set by Kubeflow Trainer.",
        "nodes of a TrainJob",
        "none; always set",
    )
    MASTER_PORT = (
        "PET_MASTER_PORT",
        "Port of the first node of a TrainJob at which the others join; set by Kubeflow Trainer.",
        "nodes of a TrainJob",
        "none; always set",
    )
    REPORTS = (
        "STREETVISION_REPORTS",
        "Folder in which torchrun records which ranks failed; set by the step.",
        "torchrun",
        "none; always set",
    )
    RANK = (
        "RANK",
        "Number of a rank among those of all machines; set by torchrun.",
        "ranks of torchrun",
        "none; always set",
    )
    LOCAL_RANK = (
        "LOCAL_RANK",
        "Number of a rank on its machine; set by torchrun.",
        "ranks of torchrun",
        "none; always set",
    )
    LOCAL_WORLD_SIZE = (
        "LOCAL_WORLD_SIZE",
        "Number of ranks on a rank's machine; set by torchrun.",
        "ranks of torchrun that compute features",
        "the number of all ranks",
    )
    OMP_NUM_THREADS = (
        "OMP_NUM_THREADS",
        "Threads per rank; set by the step where it is not set.",
        "PyTorch and numpy",
        "available CPU cores divided by the number of ranks",
    )
    OMP_WAIT_POLICY = (
        "OMP_WAIT_POLICY",
        "Whether waiting threads spin; set by the step where it is not set.",
        "PyTorch and numpy",
        "in ranks: PASSIVE, a waiting thread gives its core away",
    )
    TOKENIZERS_PARALLELISM = (
        "TOKENIZERS_PARALLELISM",
        "Set to false for the ranks, which are forked after tokenizers was imported.",
        "tokenizers",
        "in ranks: false",
    )
    PYTHONPATH = (
        "PYTHONPATH",
        "Folders of modules; a local run and the ranks get the project's folder in front.",
        "Python",
        "the project's folder",
    )

    # Kubeflow.
    KFP_ENDPOINT = (
        "KF_PIPELINES_ENDPOINT",
        "Address of Kubeflow Pipelines' API, for example http://localhost:8080/pipeline.",
        "commands that ask the API, where --host is not given",
        "in a pod of the cluster: the API's service",
    )
    KFP_TOKEN = (
        "STREETVISION_KFP_TOKEN",
        "Bearer token for Kubeflow Pipelines' API.",
        "commands that ask the API",
        "no token",
    )
    KFP_COOKIE = (
        "STREETVISION_KFP_COOKIE",
        "Dex session cookie for Kubeflow Pipelines' API: authservice_session=...",
        "commands that ask the API",
        "no cookie",
    )
    PIPELINE_ROOT = (
        "STREETVISION_PIPELINE_ROOT",
        "Pipeline root of new runs, s3:// or minio://; also a key of ConfigMap streetvision-store.",
        "commands that start runs or read their artifacts, where --root is not given",
        "the root of the namespace",
    )
    KUBECONFIG = (
        "KUBECONFIG",
        "File that says how Kubernetes is reached.",
        "commands that ask Kubernetes",
        "~/.kube/config",
    )
    KUBERNETES_SERVICE_HOST = (
        "KUBERNETES_SERVICE_HOST",
        "Set by Kubernetes in every pod: whether a command runs inside the cluster.",
        "commands that ask the API or Kubernetes",
        "not in a cluster",
    )

    KUBERNETES_SERVICE_PORT = (
        "KUBERNETES_SERVICE_PORT",
        "Set by Kubernetes in every pod: port of its API.",
        "training steps with n_nodes > 1",
        "443",
    )

    # Images.
    REGISTRY = (
        "STREETVISION_REGISTRY",
        "Prefix of the images' names.",
        "commands that build images or compile the pipeline",
        "streetvision",
    )
    BASE_IMAGE = (
        "STREETVISION_BASE_IMAGE",
        "Base image to build on instead of the pinned one.",
        "the command that builds images",
        "the image that images/Dockerfile pins",
    )
    DOCKER = (
        "DOCKER",
        "Client that builds and pushes images.",
        "the command that builds images",
        "docker",
    )
    DOCKER_BUILDKIT = (
        "DOCKER_BUILDKIT",
        "Set to 1: images are built by BuildKit.",
        "docker",
        "1",
    )
    PIP_FIND_LINKS = (
        "PIP_FIND_LINKS",
        "Folder of wheels that are installed in preference to the package index.",
        "the command that builds images",
        "no folder",
    )
    PIP_CERT = (
        "PIP_CERT",
        "PEM file with the authorities of the package index; given to the build as a secret.",
        "the command that builds images",
        "the authorities of pip",
    )

    # Libraries, as the images set them.
    ORT_NO_TELEMETRY = (
        "ORT_DISABLE_TELEMETRY",
        "Set to 1: onnxruntime sends no usage data to its maker and writes no file for it.",
        "onnxruntime",
        "where a form of a bundle runs: 1",
    )
    HUB_TOKEN = (
        "HF_TOKEN",
        "Access token of the Hugging Face Hub, for gated models.",
        "huggingface_hub, in the step that imports a backbone",
        "no token",
    )
    HUB_CACHE = (
        "HF_HOME",
        "Cache of the Hugging Face Hub; set by the images.",
        "huggingface_hub",
        "in the images: below /tmp",
    )
    MATPLOTLIB_CACHE = (
        "MPLCONFIGDIR",
        "Cache of matplotlib; set by the images.",
        "matplotlib",
        "in the images: below /tmp",
    )
    NO_BYTECODE = (
        "PYTHONDONTWRITEBYTECODE",
        "No bytecode is written; set by the images, whose folders are read-only.",
        "Python",
        "in the images: 1",
    )
    UNBUFFERED = (
        "PYTHONUNBUFFERED",
        "Lines of the log appear at once; set by the images.",
        "Python",
        "in the images: 1",
    )


# What StoreSettings is made from.
S3_VARIABLES: tuple[str, ...] = tuple(
    name for name in Variable if name.startswith("STREETVISION_S3_")
)

# Whose values are never part of a message.
SECRET_VARIABLES: tuple[str, ...] = (
    Variable.S3_SECRET_KEY,
    Variable.S3_SESSION_TOKEN,
    Variable.KFP_TOKEN,
    Variable.KFP_COOKIE,
    Variable.HUB_TOKEN,
    Variable.WEBHOOK_SECRET,
    # Those of other programs, which share an environment with ours.
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
