"""What a cluster gives each task: image, secret, volume, GPU, retries, time. Nothing here is read by a step."""

import json
from dataclasses import asdict, dataclass, field

from kfp import kubernetes
from kfp.dsl import PipelineTask

from odn.errors import ConfigError
from odn.trainjob import RUNTIME, VARIABLE, Nodes
from pipelines.names import require_cpu, require_image, require_memory, require_subdomain

SECRET_KEYS = (  # of --secret; one that the secret lacks is left out
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_S3_ENDPOINT_URL",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
)
GPU = "nvidia.com/gpu"
MOST_NODES = 64
PROGRESS = "/progress"  # where --pvc is mounted: an interrupted training goes on from there
USER = 10001  # the image's
RETRIES, BACKOFF, BACKOFF_FACTOR = 2, "30s", 2
SHORT_SECONDS, LONG_SECONDS = 3600, 24 * 3600
WHOLE_SECONDS = (RETRIES + 1) * LONG_SECONDS + 3600  # Argo ends the last try so long after the first began; without it after an hour


@dataclass(frozen=True, kw_only=True)
class Platform:
    """Say what a task gets on the cluster.

    Raises:
        ConfigError: the image has no tag or a moving one, a name or a quantity is none that Kubernetes takes, or a number is out of range.
    """

    image: str
    cpu_image: str = ""  # of the steps without a GPU, where training steps have one; "" for the same
    gpus: int = 0  # of each training step
    secret: str = ""  # whose keys become environment variables
    pvc: str = ""  # that keeps interrupted trainings
    node_selector: dict[str, str] = field(default_factory=dict)  # of the training steps
    cpu: str = ""  # that each training step requests, such as 4
    memory: str = ""  # such as 8Gi
    nodes: int = 0  # that a training step has, in a TrainJob; 0: it trains itself
    runtime: str = RUNTIME  # of a TrainJob

    def __post_init__(self) -> None:
        require_image("--image", self.image)
        if self.cpu_image:
            require_image("--cpu-image", self.cpu_image)
            if not self.gpus:
                raise ConfigError("--cpu-image: no step has a GPU without --gpus; name this image as --image, or give --gpus")
        for flag, name in (("--secret", self.secret), ("--pvc", self.pvc)):
            if name:
                require_subdomain(flag, name)
        if self.cpu:
            require_cpu("--cpu", self.cpu)
        if self.memory:
            require_memory("--memory", self.memory)
        if not 0 <= self.gpus <= 16:
            raise ConfigError(f"--gpus: expected a whole number from 0 to 16; got {self.gpus}")
        if not 0 <= self.nodes <= MOST_NODES:
            raise ConfigError(f"--nodes: expected a whole number from 0 to {MOST_NODES}; got {self.nodes}")
        require_subdomain("--runtime", self.runtime)
        if self.nodes and not self.pvc:
            raise ConfigError("--nodes: the nodes of a training and its step share a volume; name its claim with --pvc")

    def require_processes(self, processes: int) -> None:
        """Require that what a training step gets holds its processes.

        Raises:
            ConfigError: `train.processes` is another number than there are GPUs, or cannot be shared out to the nodes.
        """
        nodes = max(1, self.nodes)
        if self.gpus and processes != nodes * self.gpus and (self.nodes or processes > 1):
            raise ConfigError(
                f"train.processes: {processes}, but --nodes {nodes} and --gpus {self.gpus} are {nodes * self.gpus}; each takes a GPU"
            )
        if processes % nodes or (self.nodes and processes == 1):
            raise ConfigError(
                f"train.processes: {processes} cannot be shared out evenly to --nodes {nodes}; make it a multiple, 2 at least"
            )

    def job(self, processes: int) -> str:
        """Describe the nodes of a TrainJob, for the step that submits it."""
        nodes = Nodes(
            nodes=self.nodes,
            processes=processes // self.nodes,
            gpus=self.gpus,
            image=self.image,
            runtime=self.runtime,
            pvc=self.pvc,
            mount=PROGRESS,
            secret=self.secret,
            keys=SECRET_KEYS,
            cpu=self.cpu,
            memory=self.memory,
            node_selector=self.node_selector,
            user=USER,
            seconds=LONG_SECONDS,
        )
        return json.dumps(asdict(nodes), sort_keys=True)


def place(task: PipelineTask, name: str, platform: Platform, *, processes: int = 0) -> PipelineTask:
    """Name a task and give it what it needs; a task that trains, in `processes`, gets the GPU, the volume and the retries."""
    task.set_display_name(name)
    trains_here = processes and not platform.nodes
    task.set_container_image(platform.image if trains_here else platform.cpu_image or platform.image)
    task.set_caching_options(enable_caching=True)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp")  # noqa: S108  # the one place the image writes to: its root may be read-only
    kubernetes.set_timeout(task, seconds=LONG_SECONDS if processes else SHORT_SECONDS)
    if platform.secret:
        keys = {key: key for key in SECRET_KEYS}
        kubernetes.use_secret_as_env(task, secret_name=platform.secret, secret_key_to_env=keys, optional=True)
    return _for_training(task, platform, processes=processes) if processes else task


def _for_training(task: PipelineTask, platform: Platform, *, processes: int) -> PipelineTask:
    task.set_retry(RETRIES, backoff_duration=BACKOFF, backoff_factor=BACKOFF_FACTOR, backoff_max_duration=f"{WHOLE_SECONDS}s")
    if platform.pvc:
        kubernetes.mount_pvc(task, pvc_name=platform.pvc, mount_path=PROGRESS)
        task.set_env_variable("ODN_PROGRESS", PROGRESS)
    if platform.nodes:  # the step waits, and its nodes get what it would have got
        task.set_env_variable(VARIABLE, platform.job(processes))
        return task
    if platform.cpu:
        task.set_cpu_request(platform.cpu)
    if platform.memory:
        task.set_memory_request(platform.memory)
        task.set_memory_limit(platform.memory)
    if platform.gpus:
        task.set_accelerator_type(GPU)
        task.set_accelerator_limit(platform.gpus)
        kubernetes.add_toleration(task, key=GPU, operator="Exists", effect="NoSchedule")
        kubernetes.empty_dir_mount(task, volume_name="shm", mount_path="/dev/shm", medium="Memory")  # noqa: S108  # for CUDA
    for label, value in platform.node_selector.items():
        kubernetes.add_node_selector(task, label_key=label, label_value=value)
    return task
