"""Axes whose size a model leaves open, where input has to be made up: to warm it, to plan it, to show a first answer."""

SIZES_TO_TRY = (8, 32, 224, 48, 64, 512, 1)
"""For all open axes but the batch, one after the other, until the model takes one: short sequences, small and usual images, a line
of text, a window of audio, a scalar.
"""
