//! `oss-run schema`: the JSON Schema of experiment files.

use anyhow::Result;

use super::output::print_json;

/// Prints the schema.
pub fn schema() -> Result<()> {
    print_json(&oss_config::schema())
}
