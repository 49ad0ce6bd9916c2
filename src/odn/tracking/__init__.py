"""Project what the stages wrote into MLflow: the only package that imports it, and only when there is something to say.

The stages' JSON and CSV files are the record; MLflow is a picture of them that can be drawn again at any time.
What training needs of this package (`live_run`) imports nothing of the rest, so that a change there retrains nothing.
"""

from odn.tracking.live import LIVE_AFTER, LiveRun, live_run

__all__ = ["LIVE_AFTER", "LiveRun", "live_run"]
