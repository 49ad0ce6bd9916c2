"""The search as a Kubeflow pipeline: `python -m pipelines compile | run-local | submit | schedule | fetch`."""
