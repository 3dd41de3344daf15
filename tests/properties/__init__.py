"""What holds for any value: codecs, verdicts, upcasts, lanes, and the rows that wait."""
