"""Opening of a source: a folder with a CSV, Parquet, or a tree with one folder per class.

`open_source` refuses a wrong location or table with a DataError before any image is read;
`records()` then streams. A single wrong file is a reject, whatever it is, down to a pipe:
`Record.read` raises ImageRejectedError.
"""

from components.ingest_dataset.sources.config import SourceConfig
from components.ingest_dataset.sources.csv_source import open_csv
from components.ingest_dataset.sources.folder_source import open_folders
from components.ingest_dataset.sources.layout import Layout, layout_of
from components.ingest_dataset.sources.parquet_source import open_parquet
from components.ingest_dataset.sources.records import Source
from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import first_of
from components.shared.data.files import files_at


def open_source(config: SourceConfig) -> Source:
    """Read and check the table of one source.

    Raises:
        DataError: the source is none of the three, or its table is wrong.
    """
    files = files_at(config.data)
    try:
        found = layout_of(files.names(), config.csv)
    except DataError as error:
        raise DataError(f"{files.address}: {error}") from error

    if found.layout is Layout.CSV:
        return open_csv(config, files)  # a file that it lists and nobody may read is a reject

    unreadable = files.unreadable_folders()
    if unreadable:
        raise DataError(
            f"{files.address}: {first_of(unreadable)} may not be listed, and what is in there would"
            " be left out; change the mode of these folders"
        )
    if found.layout is Layout.PARQUET:
        return open_parquet(config, files, found.tables)
    return open_folders(config, files, found)
