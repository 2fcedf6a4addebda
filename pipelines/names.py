"""Names that the compiled pipeline and the command line share.

Importing them is fast, since kfp is not.
"""

PIPELINE = "streetvision-stage1"
CONFIGURE = "configure"  # the first step, which is never cached
