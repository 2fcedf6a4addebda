"""Template of the model card; a package, so that images and wheels contain its files."""
