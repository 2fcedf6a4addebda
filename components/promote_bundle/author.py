"""Who asks for a decision: the run and the commit that the environment names."""

import os

from components.promote_bundle.promote import Author
from components.shared.contracts.environment import Variable


def author_of_run() -> Author:
    """Return the run that this step belongs to, as far as the environment says."""
    return Author(
        run=os.environ.get(Variable.RUN, ""),
        git_commit=os.environ.get(Variable.GIT_COMMIT, ""),
    )
