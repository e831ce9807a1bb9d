"""What the benchmarks share: data, the common network, peers' environment, processes, limits, reports."""
