"""Pipelines of one task that looks at new images, for recurring runs.

The task is never cached: what is below the address changes, and only reading it says so.
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
        task = component(config=form["options"], **places)
        phase = component.python_func.__name__
        task.set_container_image(phase_image(phase, profile.registry))
        task.set_caching_options(enable_caching=False)
        resources.with_store(resources.heavy(task, profile), profile, "data")
        return task.outputs[output]

    return dsl.pipeline(name=PIPELINES[variant.pipeline], description=description)(
        with_form(wire, variant, kind, description)
    )
