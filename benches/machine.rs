//! The machine's peak rates on all cores: matrix product FLOP/s and memory bandwidth.
//!
//!     cargo bench --bench machine
//!
//! Prints one JSON document with the best rate of each over about one second.

#![expect(clippy::print_stdout, reason = "its output is data")]

use std::time::{Duration, Instant};

use oss_torch::Accumulate;
use serde_json::json;
use tch::{Device, Kind, Tensor};

/// Rows and columns of each matrix.
const SIZE: i64 = 2048;

/// Elements of the f32 vectors for measuring memory bandwidth: far larger than any cache.
const LONG: i64 = 64 << 20;

fn main() {
    // As in training: one thread per core.
    if let Ok(cores) = std::thread::available_parallelism() {
        tch::set_num_threads(cores.get() as i32);
    }
    let flops = 2.0 * (SIZE as f64).powi(3);
    let bytes = (LONG * 4) as f64;
    let matrix = |kind| Tensor::randn([SIZE, SIZE], (Kind::Float, Device::Cpu)).to_kind(kind);
    let by_libtorch = |kind| {
        let (a, b, out) = (matrix(kind), matrix(kind), matrix(kind));
        flops / best_seconds(|| _ = out.f_mm_out(&a, &b))
    };
    let by_gemm = |kind| {
        let (a, b, mut out) = (matrix(kind), matrix(kind), matrix(kind));
        oss_torch::has_gemm(&a)
            .then(|| flops / best_seconds(|| oss_torch::gemm(&mut out, &a, &b, Accumulate::Zero)))
    };
    let long = Tensor::ones([LONG], (Kind::Float, Device::Cpu));
    let mut copy = long.zeros_like();
    println!(
        "{}",
        json!({
            "gemm_flops_per_second": {
                "f32": { "libtorch": by_libtorch(Kind::Float), "gemm": by_gemm(Kind::Float) },
                "bf16": { "libtorch": by_libtorch(Kind::BFloat16), "gemm": by_gemm(Kind::BFloat16) },
            },
            "read_bytes_per_second": bytes / best_seconds(|| _ = long.sum(Kind::Float)),
            // Counts bytes read and bytes written.
            "copy_bytes_per_second": 2.0 * bytes / best_seconds(|| copy.copy_(&long)),
        })
    );
}

fn best_seconds(mut work: impl FnMut()) -> f64 {
    let until = Instant::now() + Duration::from_secs(1);
    let mut best = f64::INFINITY;
    while Instant::now() < until {
        let started = Instant::now();
        work();
        best = best.min(started.elapsed().as_secs_f64());
    }
    best
}
