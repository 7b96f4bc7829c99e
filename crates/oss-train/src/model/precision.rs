//! The kinds of tensors that the experiment's precisions mean.

use tch::Kind;

use oss_config::{ParamDtype, Precision};

/// The kind of the matrix products in a precision.
pub fn matmul_kind(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
        Precision::F16 => Kind::Half,
    }
}

/// The kind in which the matrices are kept between steps.
pub fn storage_kind(weights: ParamDtype) -> Kind {
    match weights {
        ParamDtype::F32 => Kind::Float,
        ParamDtype::Bf16 => Kind::BFloat16,
    }
}
