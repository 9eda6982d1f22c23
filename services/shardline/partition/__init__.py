"""Splitting: how an ONNX model is cut into stages, extracted and proved equal to the whole. The only package that knows onnx
for splitting; `runtime.py` is its one door to onnxruntime.

    skeleton   the model file without its weights          graph      what every node reads, writes and weighs
    shapes     types and sizes of tensors                  samples    inputs to run it on
    parts      some nodes as a model file of their own     runtime    runs and profiles model files
    costs      milliseconds and sizes per node             problem    what is planned over, in values
    units, lattice, search, planner: pure, problem in, stages out
    plan       the plan as a versioned file                planning   from a model file to a plan
    extract    one folder per stage                        verify     stages composed equal the whole
    picture    the graph coloured by stage
"""
