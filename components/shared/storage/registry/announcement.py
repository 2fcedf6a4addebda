"""Telling others of a promotion: a webhook, and an entry in a Kubeflow Model Registry.

Both are checked before any work is done, and neither can undo a promotion: what fails afterwards is
a warning.
"""

import os
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from components.shared.contracts.config import canonical_json
from components.shared.contracts.environment import Variable
from components.shared.contracts.redaction import conceal
from components.shared.storage.registry import model_registry, webhook
from components.shared.storage.registry.bundle_registry import BundleRegistry
from components.shared.storage.registry.documents import Decision

PROMOTED = "bundle.promoted"


@dataclass(frozen=True)
class Announcement:
    """Who is told of a promotion; empty addresses: nobody.

    Attributes:
        on_promotion: address that the record is posted to.
        model_registry_url: address of a Kubeflow Model Registry.
        key: what signs the record.
    """

    on_promotion: str = ""
    model_registry_url: str = ""
    key: bytes = field(default=b"", repr=False)

    @classmethod
    def checked(cls, on_promotion: str = "", model_registry_url: str = "") -> Self:
        """Return what can be sent; the secret is that of STREETVISION_WEBHOOK_SECRET.

        Raises:
            ConfigError: an address is malformed, the secret is missing or too short, or the client
                of the Model Registry is not installed.
        """
        key = b""
        if on_promotion:
            webhook.check_url(on_promotion)
            secret = os.environ.get(Variable.WEBHOOK_SECRET, "")
            conceal(secret)
            key = webhook.key_of(secret)
        if model_registry_url:
            model_registry.check_address(model_registry_url)
        return cls(on_promotion, model_registry_url, key)

    def send(self, decision: Decision, registry: BundleRegistry, model_name: str) -> list[str]:
        """Tell of a promotion that took effect; return one warning for each address that failed.

        Args:
            decision: the record.
            registry: where it is.
            model_name: name of the registered model.
        """
        warnings = []
        if self.on_promotion:
            document = message(decision, registry, model_name)
            problem = webhook.post(
                self.on_promotion,
                self.key,
                message_id=f"decision-{decision.number}-{decision.code}",
                seconds=int(time.time()),
                body=canonical_json(document).encode(),
            )
            warnings += [f"on_promotion: {problem}"] if problem else []

        if self.model_registry_url:
            problem = model_registry.enter(
                self.model_registry_url,
                name=model_name,
                version=f"{decision.number:06d}-{decision.challenger[:12]}",
                uri=registry.bundle_uri(decision.challenger),
                author=decision.by,
                metadata=_metadata(decision),
            )
            warnings += [f"model_registry_url: {problem}"] if problem else []
        return warnings


def message(decision: Decision, registry: BundleRegistry, model_name: str) -> dict[str, Any]:
    """Return the body of the webhook: type, timestamp and data, as Standard Webhooks has them."""
    return {
        "type": PROMOTED,
        "timestamp": decision.recorded_at,
        "data": {
            "registry": registry.uri,
            "bundle": registry.bundle_uri(decision.challenger),
            "model_name": model_name,
            "decision": asdict(decision),
        },
    }


def _metadata(decision: Decision) -> dict[str, Any]:
    """Return the custom properties of the entry; text, because the client has no null."""
    return {
        "content_digest": decision.challenger,
        "replaces": decision.champion or "",
        "decision": decision.number,
        "kind": decision.kind,
        "reason": decision.reason,
        "because": decision.because,
        "lineage": decision.lineage,
        "run": decision.run,
        "git_commit": decision.git_commit,
    }
