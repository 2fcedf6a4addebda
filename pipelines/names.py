"""Names that the compiled pipelines and the command line share.

Importing them is fast, since kfp is not.
"""

# Each pipeline of the project, as the command line names it, and its name in Kubeflow, to which
# KFP's cache keys belong. `catalog` has its graph, `parameters.FORMS` the parameters of its runs.
STAGE1, CONTINUOUS = "stage1", "continuous"
TUNE, TUNE_TRAINING = "tune", "tune-training"
DRIFT, LABELLING, SCORE = "drift", "labelling", "score"
PIPELINES = {
    STAGE1: "streetvision-stage1",
    CONTINUOUS: "streetvision-continuous",
    TUNE: "streetvision-tune",
    TUNE_TRAINING: "streetvision-tune-training",
    DRIFT: "streetvision-drift",
    LABELLING: "streetvision-labelling",
    SCORE: "streetvision-score",
}
PIPELINE = PIPELINES[STAGE1]
CONFIGURE = "configure"  # the first step, which is never cached


def name_in_kubeflow(pipeline: str) -> str:
    """Return a pipeline's name in Kubeflow; what is no pipeline of the project is such a name."""
    return PIPELINES.get(pipeline, pipeline)


def key_of(pipeline: str) -> str:
    """Return the key of PIPELINES of a pipeline with either name.

    Another name is one that `stage1` is uploaded under.
    """
    keys = {name: key for key, name in PIPELINES.items()}
    return keys.get(name_in_kubeflow(pipeline), STAGE1)
