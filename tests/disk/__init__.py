"""Power cuts, failing disks and rotten bytes, on the real embedded files."""
