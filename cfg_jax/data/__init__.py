"""Named data sets and the pipeline whose batch is a function of (seed, step) alone."""
