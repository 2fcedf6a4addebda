"""Template of the report of a search; a package, so that images and wheels contain it."""
