"""Training data: files in the MS-TCN layout, data sets, recordings at the model's rate."""
