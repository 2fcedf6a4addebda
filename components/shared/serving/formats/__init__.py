"""Further forms of a bundle's model, which run without torch."""
