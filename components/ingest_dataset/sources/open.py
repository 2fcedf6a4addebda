"""Opening of a source: a folder with a CSV, or Parquet in the Hugging Face image layout.

`open_source` refuses a wrong location or table with a DataError before any image is read;
`records()` then streams. A single wrong file is a reject: `Record.read` raises ImageRejectedError.
"""

from components.ingest_dataset.sources.config import SourceConfig
from components.ingest_dataset.sources.csv_source import open_csv
from components.ingest_dataset.sources.files import files_at
from components.ingest_dataset.sources.parquet_source import open_parquet
from components.ingest_dataset.sources.records import Source
from components.shared.contracts.errors import DataError


def open_source(config: SourceConfig, class_names: tuple[str, ...]) -> Source:
    """Read and check the table of one source; a CSV takes precedence over Parquet.

    Raises:
        DataError: the source has neither, or its table is wrong.
    """
    files = files_at(config.data)
    names = files.names()
    parquet = [name for name in names if name.endswith(".parquet")]
    if config.csv in names:
        return open_csv(config, class_names, files)
    if parquet:
        return open_parquet(config, class_names, files, parquet)
    raise DataError(
        f"{files.address}: holds neither {config.csv!r} nor Parquet files; name the CSV with"
        " csv=..."
    )
