"""Load tests: a benchmark against peers, an open-loop generator, Locust scenarios and a soak. Loopback only by default."""
