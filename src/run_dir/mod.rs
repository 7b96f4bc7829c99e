//! Every path of a run, its manifest and its locks.
