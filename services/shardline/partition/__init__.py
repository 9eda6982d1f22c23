"""Splitting: how an ONNX model is cut into stages, extracted and proved equal to the whole. The only package that knows onnx
for splitting; `runtime.py` is its one door to onnxruntime.

    skeleton   the model file without its weights          graph      what every node reads, writes and weighs
    shapes     sizes of tensors at a given batch           samples    inputs to run it on
    costs      milliseconds per node                       planner    pure: nodes and costs in, stages out
    document   the plan as a versioned file                extract    one model file per stage
    verify     stages composed equal the whole             picture    the graph coloured by stage
"""
