//! Walks the plan.
