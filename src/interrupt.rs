//! SIGINT and SIGTERM: the first asks for a stop, the second stops at once.
