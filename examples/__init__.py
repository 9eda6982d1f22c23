"""Example models, real inputs for them, and a demo that serves them.

Nothing heavy is imported here: `examples.models` needs onnx, `examples.inputs` needs only numpy until a data set or
the tokenizer is asked for, `examples.client` and `examples.demo` need tritonclient.
"""
