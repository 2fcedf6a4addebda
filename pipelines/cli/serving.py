"""Verbs for a bundle that is served on a cluster: `serving status`."""

import json as json_
from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.cli.declare import CHAMPION, verb
from pipelines.cli.help import VerbGroup
from pipelines.cli.registry_options import Json

app = typer.Typer()
serving = typer.Typer(
    cls=VerbGroup,
    help="See what answers on a cluster.",
    subcommand_metavar="ACTION [ARGS]...",
)
app.add_typer(serving, name="serving", rich_help_panel=CHAMPION)

_STATUS_NOTES = """
examples:
  python -m pipelines serving status
  python -m pipelines serving status --namespace streetvision --json

Kubernetes is asked as kubectl would. A server that follows the registry serves its champion,
whichever that is: `champion` shows the digest.

exit code: 0 if the service is ready, 1 if not, 42 if there is none
"""


@verb(serving, "status", notes=_STATUS_NOTES)
def status(
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Name of the InferenceService.")
    ] = "streetvision",
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace",
            metavar="NAME",
            help="Namespace of the service.",
            show_default="that of kubeconfig's context, else kubeflow",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show the champion and the challenger behind an address of KServe, and their traffic."""
    from pipelines.kubeflow.connection import KFP_NAMESPACE, kube_context
    from pipelines.kubeflow.run_pods import open_cluster
    from pipelines.kubeflow.serving import serving_status

    context = kube_context()
    chosen = namespace or (context[1] if context else "") or KFP_NAMESPACE
    found = serving_status(open_cluster(chosen)[1], name)

    if json:
        print(json_.dumps(asdict(found), indent=1))
    else:
        print(
            f"{found.name}: {'ready' if found.ready else 'not ready'}, {found.url or 'no address'}"
        )
        for backend in found.backends:
            of = f" ({backend.revision})" if backend.revision else ""
            state = "" if backend.ready else ", not ready"
            print(f"{backend.role:10} {backend.percent:3} %  {backend.bundle}{of}{state}")
        for reason in found.reasons:
            print(reason)
    if not found.ready:
        raise SystemExit(1)
