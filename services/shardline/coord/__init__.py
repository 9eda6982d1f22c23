"""The only package that knows Redis: who is alive, how loaded, what is wanted. Small facts, never tensors.

Losing Redis costs balance, not answers: readers keep their last view, writers go on without it, and what was in it
comes back by itself. `keys` has every key; docs/adr/0003 says why it is as it is.
"""
