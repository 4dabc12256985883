"""How the properties are tried: the same examples at every run of CI, new ones on a desk. And a child process."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings

pytest.register_assert_rewrite("support")  # before it is imported
from support import Child  # noqa: E402

# A failure in CI is told as it was found; making it small takes minutes, and a desk is the place for it.
found_is_enough = (Phase.explicit, Phase.reuse, Phase.generate)
settings.register_profile("ci", derandomize=True, deadline=None, phases=found_is_enough)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


@pytest.fixture
def child() -> Iterator[Child]:
    """Another process."""
    process = Child()
    yield process
    process.kill()
