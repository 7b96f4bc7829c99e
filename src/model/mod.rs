//! The gpt-oss architecture as a chain of units.
