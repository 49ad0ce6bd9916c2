"""The image that every component runs in, unless a pipeline names another when it is compiled."""

IMAGE = "odn-python:dev"  # kfp.local warns of a name without "python" in it
