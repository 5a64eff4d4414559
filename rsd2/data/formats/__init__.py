"""Label formats, a file for each: reading, checking and writing."""
