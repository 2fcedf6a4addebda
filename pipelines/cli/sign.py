"""The verb `sign`: sign a bundle that is there, in a folder or in the registry."""

import os
from pathlib import Path
from typing import Annotated

import typer

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import printable
from pipelines.cli.declare import CHAMPION, verb
from pipelines.cli.promote import folder_of
from pipelines.cli.registry import print_json
from pipelines.cli.registry_options import Json, RegistryOptions, opened
from pipelines.kubeflow.options import ApiAddress, StoreOptions

app = typer.Typer()

_NOTES = f"""
examples:
  python -m pipelines sign BUNDLE --key signing.pem
  python -m pipelines sign 3f2a9c1b7d4e --key new.pem --bundle-registry s3://streetvision/registry

A run signs its bundle by itself where {Variable.SIGNING_KEY} is set: this verb is for
bundles of earlier runs, and for a new key. The signature is the file model.sig in the bundle, in
place of the one that is there; the bundle's content digest stays. A bundle of the registry is
named by the first digits of its digest, and gets the signature there.

The key is a file, so that it stands in no list of processes and no history of a shell. Make one
with its public half, which the bundle's users name as --trusted-keys:
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out signing.pem
  openssl pkey -in signing.pem -pubout -out signing.pub
"""


@verb(app, "sign", CHAMPION, notes=_NOTES)
def sign(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or a digest.")
    ],
    where: RegistryOptions,
    api: ApiAddress,
    store: StoreOptions,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="PEM file with the private key, and the certificate and its chain if it has any.",
            show_default=f"that of {Variable.SIGNING_KEY}",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Sign a bundle, so that its users can tell who made it."""
    from components.shared.serving.signature import sign_bundle

    named = key or os.environ.get(Variable.SIGNING_KEY)
    if not named:
        raise ConfigError(f"no key is named; give --key FILE, or set {Variable.SIGNING_KEY}")

    if Path(bundle).is_dir():
        signer = sign_bundle(Path(bundle), Path(named))
    else:
        with opened(where, api, store) as found, folder_of(found, bundle) as folder:
            signer = sign_bundle(folder, Path(named))
            found.put_bundle(folder)

    if json:
        print_json({"bundle": bundle, "signer": signer})
    else:
        print(printable(f"signer: {signer}"))
