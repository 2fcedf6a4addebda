"""Template of the report of drift, a package so that it belongs to the phase's image."""
