"""Draws docs/images/replay.png: `steward replay flight_delay … --json | python docs/replay_picture.py`."""

# ruff: noqa: INP001

import json
import sys
from pathlib import Path

from steward.reports import drawing, replay
from steward.reports.formats import words

PICTURE = Path(__file__).parent / "images" / "replay.png"


def main() -> None:
    played = json.load(sys.stdin)
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_bytes(drawing.png(replay.over_time(played["policies"], words(played["metric"]))))


if __name__ == "__main__":
    main()
