"""What schemathesis cannot know from a schema: what a picture or a sound is."""

import os
import sys

import schemathesis
from hypothesis import strategies
from http1 import file, model, samples

url = next(argument for argument in sys.argv if argument.startswith("http")).removesuffix("/openapi.json")
told = model(url)
files = [file(told, samples(told, 1, seed)[0]) for seed in range(5)]
for content_type in ("image/png", "audio/wav", "image/apng"):
    schemathesis.openapi.media_type(content_type, strategies.sampled_from(files))
