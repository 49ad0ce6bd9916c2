"""The command line of the pipeline: `python -m pipelines COMMAND …`."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from odn.arguments import Parser
from odn.errors import OdnError
from odn.sanitize import sanitized
from odn.trainjob import RUNTIME
from pipelines.errors import RunFailedError

PACKAGE = Path("build/pipeline.yaml")
EXPERIMENT, KUBEFLOW = "odn", "kubeflow"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 where a run failed or a cluster is to be mended, or 2 after a plain line on what is wrong."""
    options = _parser().parse_args(arguments)
    warnings.simplefilter("ignore")  # kfp's own
    try:
        return options.run(options) or 0
    except OdnError as error:
        print("\n".join(f"odn: {line}" for line in error.lines), file=sys.stderr)
        return 1 if isinstance(error, RunFailedError) else 2
    except BrokenPipeError:
        return 0  # the reader of our output has seen enough
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"odn: {sanitized(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"odn: interrupted; {sanitized(options.left)}", file=sys.stderr)
        return 130


def _parser() -> Parser:
    parser = Parser(prog="python -m pipelines", description="The search as a Kubeflow pipeline.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser("compile", help="write the pipeline's YAML")
    command.set_defaults(run=_compile, left="nothing was written")
    command.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings (default: %(default)s)")
    command.add_argument("--out", type=Path, default=PACKAGE, help="(default: %(default)s)")
    command.add_argument("--image", required=True, help="of every step, by digest or git-sha tag; see 'make image'")
    command.add_argument(
        "--cpu-image", default="", help="of the steps that have no GPU where --gpus gives some; see 'make image VARIANT=cpu'"
    )
    command.add_argument("--backbone", help="another than the settings', at all its depths")
    command.add_argument("--gpus", type=int, default=0, help="for each training step, or node of it (default: %(default)s)")
    command.add_argument("--nodes", type=int, default=0, help="of each training, which becomes a TrainJob; 0: the step trains itself")
    command.add_argument("--runtime", default=RUNTIME, help="of a TrainJob: a ClusterTrainingRuntime (default: %(default)s)")
    command.add_argument("--cpu", default="", help="that each training step requests, such as 4")
    command.add_argument("--memory", default="", help="of each training step, such as 8Gi")
    command.add_argument("--secret", default="", help="Kubernetes secret whose keys (MLFLOW_TRACKING_URI, AWS_…) become variables")
    command.add_argument("--pvc", default="", help="volume claim that keeps interrupted trainings")
    command.add_argument("--node-selector", action="append", default=[], metavar="LABEL=VALUE", help="of training steps; may be repeated")

    command = _with_package(commands.add_parser("run-local", help="run the YAML here, with kfp.local"))
    command.set_defaults(run=_run_local, left="the run has ended here; the same command begins it anew")
    command.add_argument("--out", type=Path, default=Path(".odn/local"), help="folder of the run (default: %(default)s)")
    command.add_argument("--docker", action="store_true", help="in the real image, instead of processes of this environment")

    command = _with_package(commands.add_parser("submit", help="start a run on the cluster of KFP_HOST"))
    command.set_defaults(run=_submit, left="if Kubeflow had taken the run already, its page of runs shows it")
    command.add_argument("--name", help="of the run")
    command.add_argument("--wait", action="store_true", help="until it ends; exit with 1 if it fails")

    command = _with_package(commands.add_parser("schedule", help="run again and again; only changed data is trained on anew"))
    command.set_defaults(run=_schedule, left="if Kubeflow had taken it already, its page of recurring runs shows it")
    command.add_argument("--name", required=True, help="of the recurring run")
    command.add_argument("--cron", required=True, help="six fields, seconds first: '0 0 3 * * *' is every night at three")

    command = commands.add_parser(
        "doctor", help="say whether this Kubeflow tries a failed step again; reads one configmap through kubectl's context"
    )
    command.set_defaults(run=_doctor, left="nothing was changed")
    command.add_argument("--namespace", default=KUBEFLOW, help="of Kubeflow itself (default: %(default)s)")
    command.add_argument(
        "--mend", action="store_true", help="where it does not, change that configmap so that it does; refused while runs are going on"
    )

    command = commands.add_parser("fetch", help="bring a registered model here, and version it with DVC")
    command.set_defaults(run=_fetch, left="the same command fetches it anew")
    command.add_argument("reference", metavar="RUN|MODEL", help="a run's id, models:/NAME@ALIAS or models:/NAME/VERSION")
    command.add_argument("--out", type=Path, default=Path("models"), help="folder that gets one of the model's name (default: %(default)s)")
    return parser


def _with_package(command: Parser) -> Parser:
    command.add_argument("--package", type=Path, default=PACKAGE, help="the compiled YAML (default: %(default)s)")
    command.add_argument("arguments", nargs="*", metavar="NAME=VALUE", help="of the run, such as target=0.99 data_source=mnist")
    return command


def _compile(options: argparse.Namespace) -> None:
    from pipelines.compiled import compile_pipeline, settings_for
    from pipelines.names import labels
    from pipelines.platform import Platform

    names = ("image", "cpu_image", "gpus", "secret", "pvc", "cpu", "memory", "nodes", "runtime")
    named = {name: getattr(options, name) for name in names}
    platform = Platform(**named, node_selector=labels("--node-selector", options.node_selector))
    config = settings_for(options.params, backbone=options.backbone)
    compile_pipeline(config, platform=platform, out=options.out)
    depths = ", ".join(map(str, config.search.schedule))
    images = " and ".join(filter(None, (platform.image, platform.cpu_image)))
    print(sanitized(f"{options.out}: {config.model.backbone}, {config.unit}s {depths}, image {images}"))


def _run_local(options: argparse.Namespace) -> None:
    from pipelines.arguments import run_arguments
    from pipelines.compiled import read_compiled
    from pipelines.local import run_local

    given = run_arguments(read_compiled(options.package), options.arguments)
    if options.docker:
        options.left = "the step's container may go on: 'docker ps' shows it"
    done = run_local(options.package, arguments=given, root=options.out, docker=options.docker)
    print(done.summary().describe(color=sys.stdout.isatty()))


def _submit(options: argparse.Namespace) -> None:
    from pipelines import cluster, doctor
    from pipelines.arguments import run_arguments
    from pipelines.compiled import read_compiled
    from pipelines.names import require_title
    from pipelines.progress import names_of

    if options.name is not None:
        require_title("--name", options.name)
    spec = read_compiled(options.package)
    given = run_arguments(spec, options.arguments)
    client = cluster.connect()
    run = cluster.submit(client, options.package, arguments=given, experiment=str(given.get("experiment", EXPERIMENT)), name=options.name)
    if worry := doctor.warning(KUBEFLOW):
        print(f"odn: {sanitized(worry)}", file=sys.stderr)
    options.left = f"run {run} on the cluster goes on; see {cluster.run_url(client, run)}"
    print(sanitized(f"run {run}: {cluster.run_url(client, run)}"), flush=True)
    if options.wait:
        cluster.wait(client, run, names=names_of(spec))


def _schedule(options: argparse.Namespace) -> None:
    from pipelines import cluster
    from pipelines.arguments import run_arguments
    from pipelines.compiled import read_compiled
    from pipelines.names import require_cron, require_title

    require_title("--name", options.name)
    require_cron("--cron", options.cron)
    given = run_arguments(read_compiled(options.package), options.arguments)
    client = cluster.connect()
    made = cluster.schedule(
        client,
        options.package,
        arguments=given,
        experiment=str(given.get("experiment", EXPERIMENT)),
        name=options.name,
        cron=options.cron,
    )
    print(sanitized(f"recurring run {made}: {cluster.host_of(client)}/#/recurringrun/details/{made}"))


def _doctor(options: argparse.Namespace) -> int:
    from pipelines.doctor import examine, mend
    from pipelines.names import require_subdomain

    require_subdomain("--namespace", options.namespace)
    found = examine(options.namespace)
    if options.mend and found.advice:
        mend(options.namespace)
        found = examine(options.namespace)
    print(sanitized(f"{found.seen}{'; to mend it: ' if found.advice else ''}{found.advice}"))
    return 1 if found.advice else 0


def _fetch(options: argparse.Namespace) -> None:
    from pipelines.fetch import fetch

    got, versioned = fetch(options.reference, folder=options.out)
    kept = f"'git add {versioned}' and 'dvc push' keep it"
    print(sanitized(f"{got.name} version {got.version} in {got.folder}/, versioned by {versioned}; {kept}"))


if __name__ == "__main__":
    sys.exit(main())
