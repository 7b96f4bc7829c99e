//! Maps the experiment's precision settings to libtorch dtypes.

use tch::Kind;

use oss_config::{ParamDtype, Precision};

/// The dtype of the matrix products.
pub fn matmul_kind(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
        Precision::F16 => Kind::Half,
    }
}

/// The dtype in which the matrices are stored between steps.
pub fn storage_kind(weights: ParamDtype) -> Kind {
    match weights {
        ParamDtype::F32 => Kind::Float,
        ParamDtype::Bf16 => Kind::BFloat16,
    }
}
