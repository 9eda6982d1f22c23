"""Generated protobuf messages (from `proto/`, by `make proto`), in a descriptor pool of their own.

A pool of our own lets a process hold these and another client's stubs of the same package
(tritonclient, KServe), which the default pool would refuse as duplicates.
"""

from google.protobuf import descriptor_pool

POOL = descriptor_pool.DescriptorPool()
