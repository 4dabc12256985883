"""Kernels that end when a learner goes on: the kernel manager that `cqrs-lab notebooks` hands to JupyterLab.

Owns no kernel of its own. A kernel takes some 300 MB; of ten notebooks that were opened one after the other, all ten
would stay until the server ends, because a link to the next notebook closes nothing.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager


class OneAtATime(AsyncMappingKernelManager):
    """Starts a kernel, and shuts down those of other notebooks that have nothing to do.

    A kernel that is at work is left. JupyterLab starts a new one for a notebook that is run again.
    """

    async def start_kernel(self, **given: Any) -> str:  # type: ignore[override]  # the names are the base's
        """Start a kernel and return its id."""
        started: str = await super().start_kernel(**given)
        for other in set(self.list_kernel_ids()) - {started}:
            if getattr(self.get_kernel(other), "execution_state", "") == "idle":
                await self.shutdown_kernel(other)  # type: ignore[no-untyped-call]
        return started
