"""Prints what TensorBoard itself reads from a folder of event files, as one JSON object.

usage: read_events.py DIR
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "images": 0})
events.Reload()
tags = events.Tags()
print(
    json.dumps(
        {
            "scalars": {
                tag: [[event.step, event.value] for event in events.Scalars(tag)]
                for tag in tags["scalars"]
            },
            "images": {
                tag: [
                    {
                        "step": event.step,
                        "width": event.width,
                        "height": event.height,
                        "png": event.encoded_image_string.hex(),
                    }
                    for event in events.Images(tag)
                ]
                for tag in tags["images"]
            },
        }
    )
)
