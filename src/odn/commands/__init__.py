"""What a person calls beside the stages of the pipeline."""
