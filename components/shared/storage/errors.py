"""Errors of the object store, transient and permanent."""

from components.shared.contracts.errors import PermanentError, TransientError


class StoreUnavailableError(TransientError):
    """The store did not answer, or only with server errors, until the deadline."""


class StoreConflictError(TransientError):
    """Another writer was first; read the object again and decide anew."""


class StoreRefusedError(PermanentError):
    """The store refused the request: credentials, permissions, certificate, bucket, request."""


class ObjectNotFoundError(PermanentError):
    """The bucket exists, the object does not."""


class StoreUnsuitableError(PermanentError):
    """The store ignores conditions on writes.

    Two runs could both believe that they promoted their model.
    """


class DigestMismatchError(PermanentError):
    """The SHA-256 of the object's bytes differs from the expected one."""
