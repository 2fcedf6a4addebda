"""Upload of a data set or a backbone from this machine to the object store that the steps read
from.
"""
