"""Reading of a file that an option names, on this machine or in the object store."""

from pathlib import Path

from components.shared.contracts.errors import ConfigError, DataError
from components.shared.contracts.listing import shown
from components.shared.contracts.regular_files import read_regular

MOST_BYTES = 256 << 20  # of one table: millions of rows


def read_place(option: str, place: str) -> bytes:
    """Return the bytes of a local path or an s3:// address, which `option` names in messages.

    Raises:
        ConfigError: the address is that of a bucket.
        DataError: there is no such file, or it cannot be read; also the errors of the store.
    """
    where = f"{option}={shown(place)}"
    if place.startswith("s3://"):
        from components.shared.storage.client import Store, split_uri

        bucket, key = split_uri(place)
        if not key:
            raise ConfigError(f"{where} is a bucket; give the address of a CSV")
        return Store.from_environment().read(bucket, key, most_bytes=MOST_BYTES)

    try:
        return read_regular(Path(place), most_bytes=MOST_BYTES)
    except FileNotFoundError:
        raise DataError(f"{where} does not exist") from None
    except OSError as error:
        raise DataError(f"{where} cannot be read ({error.strerror})") from error
