//! Operations of libtorch that tch lacks.
