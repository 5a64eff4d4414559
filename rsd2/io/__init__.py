"""Files, images, text, worker processes: the ground floor, which imports no other room."""
