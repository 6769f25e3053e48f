"""Translation experiments: translating, evaluating, aligning and drawing."""
