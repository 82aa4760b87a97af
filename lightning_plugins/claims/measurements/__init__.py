"""What one run of an experiment trains and measures, one module per paper."""
