"""Target of the checks: namespace of the runs, mode of KFP, compiled pipeline."""

from dataclasses import dataclass

from pipelines.resources import Profile

RUNNER = "streetvision-runner"  # manifests/base/runner; the pods of all steps run as this account


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a run would go.

    multi_user: KFP's mode. images: references of the steps' images. store_endpoint: host:port that
    replaces the object store's address inside the cluster, "" where this machine reaches that one.
    """

    namespace: str
    kfp_namespace: str
    multi_user: bool
    profile: Profile
    images: tuple[str, ...] = ()
    store_endpoint: str = ""

    @property
    def apply(self) -> str:
        """The command that installs all that is ours."""
        return (
            f"kubectl apply -k manifests/overlays/{'profile' if self.multi_user else 'single-user'}"
        )

    @property
    def apply_runner(self) -> str:
        """The command that installs the service account with its role.

        In a Profile an editor may not.
        """
        return f"have an admin run: {self.apply}/admin" if self.multi_user else self.apply

    @property
    def apply_store(self) -> str:
        """The command that installs the store's settings and its Secret.

        In a Profile an editor may.
        """
        return f"{self.apply}/editor" if self.multi_user else self.apply
