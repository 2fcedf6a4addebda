"""Models of what KFP's back end makes of a compiled pipeline, and rules for the pipeline.

Each model names the source that it follows.

`argo` makes the Workflow object and `pod_patch` the pods; `workflow_size` counts their bytes.
`driver` resolves the inputs of every task, `cache_key` tells what comes from the cache, `rules`
what is refused or handled badly. `kfp_workflows` holds pipelines and the Workflows made of them,
copied from Kubeflow Pipelines 2.17.0 (test_data/ sdk_compiled_pipelines and
test_data/compiled-workflows; Apache License 2.0).
"""
