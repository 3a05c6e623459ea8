"""What benchmarks/retrieval.py compares: the workload, the four systems, and the parts that are measured."""
