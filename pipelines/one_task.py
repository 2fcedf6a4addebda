"""Pipelines that look at new images, for recurring runs: most have one task.

Their tasks are never cached: what is below the address changes, and only reading it says so.
"""

from typing import Any

from kfp import dsl

from pipelines import resources
from pipelines.names import PIPELINES
from pipelines.parameters import Variant
from pipelines.resources import Profile
from pipelines.sources import phase_image
from pipelines.stage1 import with_form


def one_task(
    component: Any, output: str, kind: type, description: str, profile: Profile, variant: Variant
) -> Any:
    """Return a pipeline of one task, as a KFP graph component.

    Args:
        component: The phase's component. It takes `options` of the form as its configuration, and
            the other parameters by their names.
        output: Name of the component's artifact that is the pipeline's output.
        kind: Its type.
        description: What the pipeline does, in one sentence.
        profile: Resources.
        variant: Names the pipeline, and so its form; it has one graph.
    """

    def wire(form: dict[str, Any]) -> Any:
        places = {name: channel for name, channel in form.items() if name != "options"}
        return never_cached(component, profile, config=form["options"], **places).outputs[output]

    return standalone(wire, kind, description, variant)


def never_cached(component: Any, profile: Profile, **inputs: Any) -> Any:
    """Return a task of a component that reads a store, with the resources of a heavy step."""
    task = component(**inputs)
    task.set_container_image(phase_image(component.python_func.__name__, profile.registry))
    task.set_caching_options(enable_caching=False)
    return resources.with_store(resources.heavy(task, profile), profile, "data")


def standalone(wire: Any, kind: type, description: str, variant: Variant) -> Any:
    """Return a pipeline without `configure`, as a KFP graph component.

    Args:
        wire: Makes the tasks of the form's channels by name, and returns the output.
        kind: Type of the output.
        description: What the pipeline does, in one sentence.
        variant: Names the pipeline, and so its form.
    """
    return dsl.pipeline(name=PIPELINES[variant.pipeline], description=description)(
        with_form(wire, variant, kind, description)
    )
