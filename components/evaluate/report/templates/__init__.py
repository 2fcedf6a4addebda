"""Templates of the HTML report; a package, so that images and wheels contain its files."""
