"""Moving a house from its home folder to a cluster: what is kept, and how it is translated."""
