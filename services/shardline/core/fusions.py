"""Which of ONNX Runtime's fusions are left out where a session is made, because they make it slower."""

SLOWER_ON_CPU = ("SkipLayerNormFusion",)
"""Its kernel is scalar: Add and LayerNormalization apart take 0.25 to 0.65 of its time, for hidden sizes of 128 to 4096 and
32 or 256 rows (ONNX Runtime 1.32, one thread of an EPYC 7003). It strikes where shapes are known: stages more than whole models."""
