"""Prints what TensorBoard itself reads from a folder of event files, as one JSON object.

usage: read_events.py DIR
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "images": 0})
events.Reload()
tags = events.Tags()


def hparams():
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    session = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    values = {key: getattr(value, value.WhichOneof("kind")) for key, value in session.hparams.items()}
    return {"group": session.group_name, "values": values}


print(
    json.dumps(
        {
            "config": events.Tensors("config")[0].tensor_proto.string_val[0].decode(),
            "hparams": hparams(),
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
