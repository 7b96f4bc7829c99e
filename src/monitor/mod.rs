//! Metrics log, TensorBoard, progress.
