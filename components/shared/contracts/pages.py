"""Pages that steps write: templates of a package, in which values are escaped and must be there."""

import jinja2

# A template includes "page.css", the style sheet of all pages, before what it adds of its own.
_SHARED = "components.shared.contracts.page_style"


def templates(package: str) -> jinja2.Environment:
    """Return the templates of a package's folder, by the package's full name.

    A phase writes the name in full, so that the files of the folder belong to its image.
    """
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package, "."), jinja2.PackageLoader(_SHARED, ".")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
