"""What `bucket_efficiency.py` is made of: workloads, the subjects that run them, measures, and how they are shown."""
