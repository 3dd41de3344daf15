"""What ``penstock bench`` measures: figures beside raw references from the same run."""
