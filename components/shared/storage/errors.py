"""What can go wrong with the object store, and is it worth trying again?"""

from components.shared.contracts.errors import PermanentError, TransientError


class StoreUnavailableError(TransientError):
    """The store did not answer, or only with server errors, until the deadline."""


class StoreConflictError(TransientError):
    """Another writer was first; read the object again and decide anew."""


class StoreRefusedError(PermanentError):
    """The store answered and said no: credentials, permissions, certificate, bucket, request."""


class ObjectNotFoundError(PermanentError):
    """The bucket exists, the object does not."""


class StoreUnsuitableError(PermanentError):
    """The store ignores conditions on writes: two runs could both believe that they promoted their
    model.
    """


class DigestMismatchError(PermanentError):
    """The object's bytes are not those that were promised."""
