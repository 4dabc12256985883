"""Scale: the same read models over a log that no machine holds.

`seal` writes a log as Parquet, `verify` tells what of it is damaged, `replay` makes the rows of a read model from it on
a Dask cluster, and `lab.serve(model).adopt(rows)` takes them over. Sealing needs no Dask.
"""

from cqrs_lab.scale.manifest import Manifest
from cqrs_lab.scale.replaying import replay
from cqrs_lab.scale.rows import Replayed
from cqrs_lab.scale.sealing import seal, verify

__all__ = ["Manifest", "Replayed", "replay", "seal", "verify"]
