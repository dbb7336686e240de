"""Prints what TensorBoard's server answers over HTTP about a folder of runs, as one JSON object.

usage: read_tensorboard.py DIR
"""

import json
import sys
import threading
import urllib.parse
import urllib.request

from tensorboard import program

server = program.TensorBoard()
server.configure(argv=[None, "--logdir", sys.argv[1], "--host", "127.0.0.1", "--port", "0", "--load_fast=false", "--reload_interval=0"])
address = server.launch()


def get(path, body=None, **query):
    url = f"{address}data/{path}"
    if query:
        url += f"?{urllib.parse.urlencode(query)}"
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"})) as answer:
        content = answer.read()
        return json.loads(content) if "json" in answer.headers["Content-Type"] else content


def tags(plugin):
    return [(run, tag) for run, all_tags in get(f"plugin/{plugin}/tags").items() for tag in all_tags]


# The server reads its folder in a thread of its own; all of a run is there at once.
for _ in range(600):
    if tags("histograms"):
        break
    threading.Event().wait(0.1)

found = {"runs": get("runs"), "histograms": {}, "audio": {}, "text": {}, "images": {}}
for run, tag in tags("histograms"):
    found["histograms"].setdefault(run, {})[tag] = get("plugin/histograms/histograms", run=run, tag=tag)
for run, tag in tags("audio"):
    sounds = get("plugin/audio/audio", run=run, tag=tag, sample=0)
    heard = [get(f"plugin/audio/individualAudio?{sound['query']}") for sound in sounds]
    found["audio"].setdefault(run, {})[tag] = [
        {"step": sound["step"], "type": sound["contentType"], "bytes": len(bytes_)} for sound, bytes_ in zip(sounds, heard)
    ]
for run, tag in tags("text"):
    found["text"].setdefault(run, {})[tag] = get("plugin/text/text", run=run, tag=tag)
for run, tag in tags("images"):
    found["images"].setdefault(run, {})[tag] = len(get("plugin/images/images", run=run, tag=tag, sample=0))
experiment = get("plugin/hparams/experiment", {"experimentName": "."})
found["hparams"] = [info["name"] for info in experiment["hparamInfos"]]
groups = get(
    "plugin/hparams/session_groups",
    {
        "experimentName": ".",
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": [{"hparam": name} for name in found["hparams"]],
        "startIndex": 0,
        "sliceSize": 1000,
    },
)
found["session_groups"] = groups["sessionGroups"]
found["projector"] = {}
for run in get("plugin/projector/runs"):
    for vectors in get("plugin/projector/info", run=run)["embeddings"]:
        asked = {"run": run, "name": vectors["tensorName"]}
        found["projector"][vectors["tensorName"]] = {
            "floats": len(get("plugin/projector/tensor", **asked)) // 4,
            "codes": len(get("plugin/projector/metadata", **asked).splitlines()) - 1,
            "picture": len(get("plugin/projector/sprite_image", **asked)),
        }
json.dump(found, sys.stdout)
