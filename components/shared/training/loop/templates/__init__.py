"""Template of the page of measurements; a package, so that images and wheels contain it."""
