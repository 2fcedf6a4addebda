"""Upload of a data set or a backbone to the object store that the steps read."""
