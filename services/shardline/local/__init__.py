"""The cluster on one machine: Redis, routers and replicas as processes, started, watched, replaced, and ended in order.

options, preflight, wishes   what is asked: settings, good models, what is split      ports     free, and kept free
staging, cutting, verified   models cut into stages, in a process of its own          layout    which replicas there are
memory, budget               what a replica may take                                  environment  settings of each process
supervisor, child, backoff   the processes' lives                                     readiness    until every model answered
sweeping, sweeper            what cleans up if the supervisor is killed               statefile    how commands find it
redis, samples, reporter     a private Redis, first inputs, what a user sees
"""
