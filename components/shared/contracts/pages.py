"""Pages that steps write: templates of a package, in which values are escaped and must be there."""

import jinja2


def templates(package: str) -> jinja2.Environment:
    """Return the templates of a package's folder, by the package's full name.

    A phase writes the name in full, so that the files of the folder belong to its image.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
