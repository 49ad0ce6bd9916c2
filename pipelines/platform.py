"""What a cluster gives each task: image, secret, volume, GPU, retries, time. Nothing here is read by a step."""

from dataclasses import dataclass, field

from kfp import kubernetes
from kfp.dsl import PipelineTask

from odn.errors import ConfigError
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


def place(task: PipelineTask, name: str, platform: Platform, *, trains: bool = False) -> PipelineTask:
    """Name a task and give it what it needs; a task that trains gets the GPU, the volume and the retries."""
    task.set_display_name(name)
    task.set_container_image(platform.image if trains else platform.cpu_image or platform.image)
    task.set_caching_options(enable_caching=True)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp")  # noqa: S108  # the one place the image writes to: its root may be read-only
    kubernetes.set_timeout(task, seconds=LONG_SECONDS if trains else SHORT_SECONDS)
    if platform.secret:
        keys = {key: key for key in SECRET_KEYS}
        kubernetes.use_secret_as_env(task, secret_name=platform.secret, secret_key_to_env=keys, optional=True)
    return _for_training(task, platform) if trains else task


def _for_training(task: PipelineTask, platform: Platform) -> PipelineTask:
    task.set_retry(RETRIES, backoff_duration=BACKOFF, backoff_factor=BACKOFF_FACTOR, backoff_max_duration=f"{WHOLE_SECONDS}s")
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
    if platform.pvc:
        kubernetes.mount_pvc(task, pvc_name=platform.pvc, mount_path=PROGRESS)
        task.set_env_variable("ODN_PROGRESS", PROGRESS)
    for label, value in platform.node_selector.items():
        kubernetes.add_node_selector(task, label_key=label, label_value=value)
    return task
