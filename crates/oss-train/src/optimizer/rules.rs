//! The optimizers, one per file.

mod adamw;
mod adamw_cpu;
mod muon;
mod newton_schulz;

use super::update_rule::{ParamGroup, UpdateRule};
use adamw::AdamW;
use muon::Muon;
use oss_config::OptimizerKind;

pub use adamw_cpu::StoredSlice;

/// The rule that updates the parameters of `group` under optimizer `kind`.
pub fn update_rule(kind: OptimizerKind, group: ParamGroup) -> &'static dyn UpdateRule {
    let rule: &dyn UpdateRule = match kind {
        OptimizerKind::Adamw => &AdamW,
        OptimizerKind::Muon => &Muon,
    };
    if rule.updates(group) { rule } else { &AdamW }
}
