"""Input nobody thought of: the API by its own description, the decoders by coverage."""
