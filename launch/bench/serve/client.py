"""An unmodified tritonclient asks the three models, with binary tensors and with JSON."""

import sys

import numpy as np
import tritonclient.http as triton

from http1 import model, samples

url = sys.argv[1]
told = model(url)
client = triton.InferenceServerClient(url.split("//")[1])
assert client.is_server_live() and client.is_server_ready()
for name in ("encode", "decode", "reconstruct"):
    assert client.is_model_ready(name) and client.is_model_ready(name, "1")
    print(name, client.get_model_metadata(name))
print("server", client.get_server_metadata())
datatype = "INT16" if told["modality"] == "sound" else "UINT8"


def infer(name, tensor, values, kind, output, binary):
    given = triton.InferInput(tensor, list(values.shape), kind)
    given.set_data_from_numpy(values, binary_data=binary)
    wanted = [triton.InferRequestedOutput(output, binary_data=binary)]
    answer = client.infer(name, [given], outputs=wanted, request_id="a")
    assert answer.get_response()["id"] == "a"
    return answer.as_numpy(output)


values = samples(told, 5)
for binary in (True, False):
    tokens = infer("encode", "samples", values, datatype, "tokens", binary)
    assert tokens.dtype == np.int32 and tokens.shape == (5, told["num_tokens"])
    back = infer("decode", "tokens", tokens, "INT32", "samples", binary)
    whole = infer("reconstruct", "samples", values, datatype, "reconstruction", binary)
    assert back.shape == values.shape and back.dtype == values.dtype
    assert np.array_equal(back, whole), "decode(encode(x)) is not reconstruct(x)"
    print("binary" if binary else "JSON", "answers agree, mean difference", np.abs(back.astype(float) - values).mean())
try:
    infer("encode", "samples", values[:, :1], datatype, "tokens", True)
    raise SystemExit("a wrong shape was taken")
except triton.InferenceServerException as error:
    print("refused:", error)
