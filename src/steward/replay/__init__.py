"""Months of history through the loop, before going live: what would a retraining policy have cost and gained?"""

from steward.replay.past import Window
from steward.replay.policies import Policy, Seen
from steward.replay.results import Alarm, Course, Played, Recommendation, Replay
from steward.replay.run import Progress, replay, write_page

__all__ = [
    "Alarm",
    "Course",
    "Played",
    "Policy",
    "Progress",
    "Recommendation",
    "Replay",
    "Seen",
    "Window",
    "replay",
    "write_page",
]
