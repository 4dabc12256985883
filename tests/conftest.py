"""How the properties are tried: the same examples at every run of CI, new ones on a desk."""

import os

from hypothesis import Phase, settings

# A failure in CI is told as it was found; making it small takes minutes, and a desk is the place for it.
found_is_enough = (Phase.explicit, Phase.reuse, Phase.generate)
settings.register_profile("ci", derandomize=True, deadline=None, phases=found_is_enough)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")
