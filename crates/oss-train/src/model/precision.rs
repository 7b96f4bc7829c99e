//! Maps the experiment's precision settings to libtorch dtypes.

use tch::{Kind, Tensor};

use super::Role;
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

/// The dtype that norms, softmaxes and routers compute in: f32, or f64 for f64 (used only in tests).
pub fn wide_kind(kind: Kind) -> Kind {
    if kind == Kind::Double { Kind::Double } else { Kind::Float }
}

/// `x` in [`wide_kind`].
pub fn wide(x: &Tensor) -> Tensor {
    x.to_kind(wide_kind(x.kind()))
}

/// The dtype of a parameter with this role in a model whose matrices are of `kind`.
pub fn compute_kind(role: Role, kind: Kind) -> Kind {
    match (role, kind) {
        (role, kind) if role.is_matrix() => kind,
        (_, kind) => wide_kind(kind),
    }
}
