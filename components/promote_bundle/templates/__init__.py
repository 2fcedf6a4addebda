"""Template of the page about a decision; a package, so that images and wheels contain its files."""
