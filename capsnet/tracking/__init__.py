"""The MLflow edge: every execution of a stage is a run of the experiment `capsnet`.

`tracker` is what stages use, `store` where the runs lie, `tags` what a run says of itself.
"""

from capsnet.tracking.tracker import Tracker, track

__all__ = ["Tracker", "track"]
