//! From an experiment to stages, keys, staleness and estimates.
