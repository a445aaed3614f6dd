"""Speed and memory against peers: every figure is a ratio measured in one run. `python -m benchmarks --help`."""
