"""Verbs for a bundle that is served on a cluster: `serving status`."""

import json as json_
import os
from dataclasses import asdict
from typing import Annotated

import typer

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import StreetVisionError, one_line
from components.shared.contracts.listing import warn
from pipelines.cli.declare import CHAMPION, verb
from pipelines.cli.help import VerbGroup
from pipelines.cli.registry_options import Json, RegistryOptions, opened
from pipelines.kubeflow.options import ApiAddress, StoreOptions

app = typer.Typer()
serving = typer.Typer(
    cls=VerbGroup,
    help="See what answers on a cluster.",
    subcommand_metavar="ACTION [ARGS]...",
)
app.add_typer(serving, name="serving", rich_help_panel=CHAMPION)

_STATUS_NOTES = f"""
examples:
  python -m pipelines serving status
  python -m pipelines serving status --namespace streetvision --json
  python -m pipelines serving status --store-endpoint localhost:9000

Kubernetes is asked as kubectl would. A server that follows the registry serves its champion; the
digest is that of the registry: --bundle-registry, {Variable.BUNDLE_REGISTRY}, or the
cluster's ConfigMap streetvision-store. Its store is opened with {Variable.S3_ENDPOINT},
{Variable.S3_ACCESS_KEY} and {Variable.S3_SECRET_KEY}, else as the cluster says; from
outside the cluster forward its port and give --store-endpoint.

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
    bundle_registry: Annotated[
        str,
        typer.Option(
            "--bundle-registry", metavar="URI", help="Registry of bundles, s3://bucket/prefix."
        ),
    ] = "",
    store_endpoint: Annotated[
        str | None,
        typer.Option(
            "--store-endpoint",
            metavar="HOST:PORT",
            help="Forwarded port of the object store, if its own address is not reachable.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show the champion and the challenger behind an address of KServe, and their traffic."""
    from pipelines.kubeflow.connection import KFP_NAMESPACE, kube_context
    from pipelines.kubeflow.run_pods import open_cluster
    from pipelines.kubeflow.serving import FOLLOWS, serving_status

    context = kube_context()
    chosen = namespace or (context[1] if context else "") or KFP_NAMESPACE
    found = serving_status(open_cluster(chosen)[1], name)
    follows = any(backend.bundle == FOLLOWS for backend in found.backends)
    champion = _champion(bundle_registry, chosen, store_endpoint) if follows else ""

    if json:
        print(json_.dumps(asdict(found) | {"champion": champion or None}, indent=1))
    else:
        print(
            f"{found.name}: {'ready' if found.ready else 'not ready'}, {found.url or 'no address'}"
        )
        for backend in found.backends:
            of = f" ({backend.revision})" if backend.revision else ""
            state = "" if backend.ready else ", not ready"
            digest = f" {champion[:12]}" if champion and backend.bundle == FOLLOWS else ""
            print(f"{backend.role:10} {backend.percent:3} %  {backend.bundle}{digest}{of}{state}")
        for reason in found.reasons:
            print(reason)
    if not found.ready:
        raise SystemExit(1)


def _champion(given: str, namespace: str, store_endpoint: str | None) -> str:
    """Return the digest of the registry's champion; empty where it is not known, which is said."""
    from pipelines.upload_data.location import registry_of_cluster

    api = ApiAddress(namespace=namespace)
    try:
        uri = given or os.environ.get(Variable.BUNDLE_REGISTRY, "") or registry_of_cluster(api)
        if not uri:
            reason = "name the registry: --bundle-registry s3://bucket/prefix"
        else:
            where = RegistryOptions(bundle_registry=uri)
            with opened(where, api, StoreOptions(store_endpoint=store_endpoint)) as registry:
                champion = registry.champion()
            if champion is not None:
                return champion.digest
            reason = f"{uri} has no champion"
    except StreetVisionError as error:
        reason = one_line(error)
    warn(f"which bundle the champion is cannot be said; {reason}")
    return ""
