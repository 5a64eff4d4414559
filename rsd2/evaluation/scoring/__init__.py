"""The protocols as pure functions of detections and ground truth."""
