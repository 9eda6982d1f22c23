"""A client in ten lines, with nothing of ours: `python -m examples.client [HOST:PORT]` asks a running server."""

import sys

import tritonclient.grpc as triton

from examples.inputs import held_out_digits

if __name__ == "__main__":
    client = triton.InferenceServerClient(sys.argv[1] if len(sys.argv) > 1 else "localhost:8001")
    digits = held_out_digits()
    image = triton.InferInput("image", [8, 64], "FP32")
    image.set_data_from_numpy(digits.images[:8])
    answer = client.infer("digits", [image])
    print("answer", answer.as_numpy("label"))
    print("truth ", digits.labels[:8])
