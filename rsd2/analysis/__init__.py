"""Reports that people look at: defects of data sets and errors of detectors."""
