"""What using this package costs, as ratios measured side by side in one run: ``python -m benchmarks``."""
